"""Each optimizer under each kind of engine that it can have: two steps, a checkpoint between them, and the second step
again from that checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.engine.deepspeed import TrainedModel
from rlhf.engine.ranks import session
from rlhf.errors import CheckpointError
from rlhf.train.sft import sft_step
from tests.distributed.problem import SCHEDULE, SMALL, sft_config
from tests.distributed.workers.building import Results, arguments, causal_lm
from tests.distributed.workers.sharing import shared_roles
from tests.distributed.workers.sharing import take as take_roles

ENGINES = [  # optimizer, ZeRO stage, type
    ("adamw", 0, "float32"),
    ("adamw8bit", 0, "float32"),
    ("adamw8bit", 2, "bfloat16"),
    ("adamw8bit", 3, "float32"),
    ("adafactor", 0, "float32"),
    ("adafactor", 0, "bfloat16"),
]


def name_of(optimizer: str, stage: int, precision: str) -> str:
    return f"{optimizer} ZeRO {stage} {precision}"


def main() -> None:
    given, out = arguments()
    with session(seed=0) as ranks:
        results = Results(ranks)
        for optimizer, stage, precision in ENGINES:
            name, folder = name_of(optimizer, stage, precision), out / f"{optimizer}-{stage}-{precision}"
            folder.mkdir()

            def build(optimizer: str = optimizer, stage: int = stage, precision: str = precision) -> TrainedModel:
                train = sft_config(SMALL).train.model_copy(update={"optimizer": optimizer})
                return causal_lm(given["paths"]["neox"], stage, train, ranks, precision=precision)

            live = build()
            results.weights[f"{name} start"] = live.state_dict()
            take(live, given, 0)
            live.save(folder)
            take(live, given, 1)
            results.weights[f"{name} whole"] = live.state_dict()
            results.numbers[f"{name} state"] = described(live)
            again = build()
            again.load(folder)
            take(again, given, 1)
            results.weights[f"{name} resumed"] = again.state_dict()
        for optimizer in ("adamw8bit", "adafactor"):
            results.weights[f"{optimizer} shared"] = one_role_moved(given, ranks, optimizer)
        results.numbers["refused"] = refused(given, ranks, out / "adamw8bit-2-bfloat16")
        results.write(out)


def take(live: TrainedModel, given: dict[str, Any], step: int) -> None:
    live.train()
    sft_step(live, given["problem"].demonstrations[step], sft_config(SMALL), SCHEDULE, step + 1)


def one_role_moved(given: dict[str, Any], ranks: Any, optimizer: str) -> dict[str, Tensor]:
    """How far each adapter of a shared backbone moved in a step of the actor alone."""
    live = shared_roles(given["paths"], 0, ranks, optimizer=optimizer)
    shared: Any = live.updates
    trained = {name: value for name, value in shared.backbone.named_parameters() if value.requires_grad}
    before = {name: value.detach().clone() for name, value in trained.items()}
    take_roles(live, given["problem"].demonstrations[0], ("actor", "critic"), ("actor",))
    owner = shared.backbone.role_of
    return {f"{owner(name)} {name}": (value - before[name]).abs().max().detach() for name, value in trained.items()}


def described(live: TrainedModel) -> dict[str, list[Any]]:
    """Type and size of every tensor of the largest parameter's state, by name."""
    states = live._engine.basic_optimizer.state
    largest: Tensor = max(states, key=lambda each: each.numel())
    found = {key: value for key, value in states[largest].items() if torch.is_tensor(value)}
    return {key: [str(value.dtype), value.numel()] for key, value in found.items()} | {
        "parameter": ["", largest.numel()],
        "shape": list(largest.shape),
    }


def refused(given: dict[str, Any], ranks: Any, folder: Path) -> str:
    """What is said when 8-bit states of ZeRO 2 are to go on at ZeRO 0."""
    train = sft_config(SMALL).train.model_copy(update={"optimizer": "adamw8bit"})
    try:
        causal_lm(given["paths"]["neox"], 0, train, ranks, precision="bfloat16").load(folder)
    except CheckpointError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
