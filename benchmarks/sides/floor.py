"""The time of exactly the matrix products of SFT steps: the least a step could take on this machine.

floor.py SHAPE.json RESULT.json: {"hidden", "layers", "vocabulary", "steps": [[tokens, loss tokens], ...]}
"""

import json
import sys
import time
from pathlib import Path

import torch

import rlhf  # noqa: F401 - the same OpenMP settings as a run's


def step_seconds(tokens: int, loss_tokens: int, hidden: int, layers: int, vocabulary: int) -> float:
    """qkv and output for all tokens, up and down too but in the last layer, there and in the head for loss tokens;
    forward, and two products backward."""
    attention, mlp = [(hidden, 3 * hidden), (hidden, hidden)], [(hidden, 4 * hidden), (4 * hidden, hidden)]
    products = [(tokens, *each) for each in attention * layers + mlp * (layers - 1)]
    products += [(loss_tokens, *each) for each in [*mlp, (hidden, vocabulary)]]
    total = 0.0
    for rows, inner, outer in products:
        inputs, weight, gradient = torch.randn(rows, inner), torch.randn(outer, inner), torch.randn(rows, outer)
        out, of_inputs, of_weight = torch.zeros(rows, outer), torch.zeros(rows, inner), torch.zeros(outer, inner)
        started = time.perf_counter()
        torch.mm(inputs, weight.T, out=out)
        torch.mm(gradient, weight, out=of_inputs)
        torch.mm(gradient.T, inputs, out=of_weight)
        total += time.perf_counter() - started
    return total


def main() -> None:
    shape = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(len(__import__("os").sched_getaffinity(0)))
    size = (shape["hidden"], shape["layers"], shape["vocabulary"])
    step_seconds(*shape["steps"][0], *size)
    seconds = [step_seconds(tokens, loss_tokens, *size) for tokens, loss_tokens in shape["steps"]]
    Path(sys.argv[2]).write_text(json.dumps({"seconds": sum(seconds)}))


if __name__ == "__main__":
    main()
