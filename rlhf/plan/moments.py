"""Bytes that each optimizer keeps beside the weights, and needs in a step."""

from __future__ import annotations

from rlhf.config.sections import ModelSection
from rlhf.plan.shapes import ModelShape

ADAM = 8.0  # two float32 moments of a number
EIGHT_BIT = 2 + 2 * 4 / 256  # a byte for each moment, and a float32 scale for 256 of them
LEAST_EIGHT_BIT = 4096  # entries of a tensor below which bitsandbytes keeps float32 moments
Matrices = list[tuple[int, int, int]]  # rows, columns, how many


def trained_matrices(shape: ModelShape, model: ModelSection) -> Matrices:
    """The trained parameters of two dimensions; all others are vectors."""
    head = [(1, shape.width, 1)] if shape.scalar else []
    if model.lora is not None:
        adapted, rank = shape.adapted(model.lora.targets).values(), model.lora.rank
        return [
            each for given, out in adapted for each in ((rank, given, shape.layers), (out, rank, shape.layers))
        ] + head
    found = [(out, given, shape.layers) for given, out in shape.linears.values()]
    found += [(shape.vocabulary, shape.width, 1 if shape.scalar or shape.tied else 2)]
    return found + head + ([(shape.positions, shape.width, 1)] if shape.positions else [])


def moment_bytes(optimizer: str, trained: float, part: float, matrices: Matrices, *, flat: bool) -> float:
    """Bytes of the moments that a rank holds.

    Args:
        optimizer: its name in the configuration.
        trained: number of trained parameters, of which the rank steps `part`.
        matrices: those of two dimensions.
        flat: whether parameters are flattened into large tensors, as from ZeRO 1 on.
    """
    if optimizer == "adamw8bit":
        large = sum(rows * columns * count for rows, columns, count in matrices if rows * columns >= LEAST_EIGHT_BIT)
        return EIGHT_BIT * part if flat else EIGHT_BIT * large + ADAM * (trained - large)
    if optimizer == "adafactor":
        vectors = trained - sum(rows * columns * count for rows, columns, count in matrices)
        return 4.0 * (sum((rows + columns) * count for rows, columns, count in matrices) + vectors)
    return ADAM * part


def update_bytes(optimizer: str, matrices: Matrices) -> float:
    """Bytes of tensors that one parameter's update makes: Adafactor's squares and its update, in float32."""
    largest = max((rows * columns for rows, columns, _ in matrices), default=0)
    return 8.0 * largest if optimizer == "adafactor" else 0.0
