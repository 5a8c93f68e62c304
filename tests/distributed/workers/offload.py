"""What ranks do with the optimizer's state in CPU memory, beside the same with it on the device."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.config.sections import OptimizerFields
from rlhf.data.packing import idle_row, pack_sequences
from rlhf.engine.deepspeed import TrainedModel
from rlhf.engine.ranks import session
from rlhf.errors import NonFiniteError
from tests.distributed.problem import EMA_DECAY, OPTIMIZER, SMALL, STEP_NUMBERS, Problem, sft_config
from tests.distributed.workers import engine
from tests.distributed.workers.building import Results, arguments, causal_lm, section_of
from tests.distributed.workers.sharing import shared_roles, take, weights_of

CONFIG = sft_config(SMALL)
STAGES = (2, 3)
UNCHECKED = "bfloat16 unchecked"
BAD_GRADIENTS = (("float32", True), (UNCHECKED, False), (UNCHECKED, True))
BOTH, CRITIC = ("actor", "critic"), ("critic",)


def main() -> None:
    given, out = arguments()
    problem, paths = given["problem"], given["paths"]
    with session(seed=0) as ranks:
        results = Results(ranks)
        for stage in STAGES:
            run_steps(results, problem, paths["neox"], stage)
            run_discarded(results, problem, paths["neox"], stage)
            run_unused(results, stage)
            run_resumed(results, problem, paths["neox"], out, stage)
        for stage, (precision, offload) in product(
            (1, 2, 3), (("float32", True), (UNCHECKED, False), (UNCHECKED, True))
        ):
            trained = causal_lm(paths["neox"], stage, CONFIG.train, ranks, precision=precision, offload=offload)
            name = f"{precision} {name_of(stage, offload=offload)}"
            engine.run_bad_gradient(results, problem, trained, f"gradient {name}")
            if stage < 3 and precision == UNCHECKED:
                run_bad_role(results, problem, paths, stage, offload=offload)
        for stage in (1, 2):
            run_warm_up(results, problem, paths, stage)
        results.write(out)


def name_of(stage: int, *, offload: bool) -> str:
    return f"zero{stage} {'offloaded' if offload else 'resident'}"


def run_steps(results: Results, problem: Problem, path: str, stage: int) -> None:
    """Three steps of several micro-batches each, clipped, with an average of the weights."""
    for offload in (False, True):
        name = name_of(stage, offload=offload)
        trained = causal_lm(path, stage, CONFIG.train, results.ranks, ema_decay=EMA_DECAY, offload=offload)
        if offload:
            results.numbers[f"optimizer {name}"] = type(trained._engine.basic_optimizer).__name__
        pairs = zip(problem.demonstrations, STEP_NUMBERS, strict=True)
        results.numbers[f"steps {name}"] = [engine.take(trained, batch, step) for batch, step in pairs]
        results.weights[f"trained {name}"] = trained.state_dict()
        with trained.averaged():
            results.weights[f"average {name}"] = trained.state_dict()


def run_discarded(results: Results, problem: Problem, path: str, stage: int) -> None:
    """A gradient dropped before each of two steps, and after the last."""
    first, second, third = problem.demonstrations
    for discards in (False, True):
        trained = causal_lm(path, stage, CONFIG.train, results.ranks, offload=True)
        norms = []
        for batch, step in ((first, 1), (second, 3)):
            if discards:
                norms.append(discard(trained, third))
            engine.take(trained, batch, step)
        if discards:
            norms.append(discard(trained, third))
            results.numbers[f"discarded zero{stage}"] = norms
        name = "with discards" if discards else "without"
        results.weights[f"{name} zero{stage}"] = trained.state_dict()


def discard(trained: TrainedModel, batch: Any) -> float:
    trained.train()
    trained.backward(trained.loss(pack_sequences(batch), 10.0).loss)
    return trained.discard().grad_norm


class Branches(nn.Module):
    """Two layers, of which a pass uses one or both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.model = nn.ModuleDict({"left": nn.Linear(4, 1), "right": nn.Linear(4, 1)})
        self.used: tuple[str, ...] = ("left", "right")

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        signal = 1 + torch.arange(4.0, device=input_ids.device)[None]
        return sum(self.model[name](signal).sum() for name in self.used)  # type: ignore[return-value]


def run_unused(results: Results, stage: int) -> None:
    """Steps of both layers, then of the left one alone: the right one has no gradient, not its last one again."""
    fields = OptimizerFields.model_validate({**OPTIMIZER, "weight_decay": 0.0, "max_grad_norm": 1e9})
    for offload in (False, True):
        trained = TrainedModel(
            Branches(),  # type: ignore[arg-type]
            fields,
            section_of(stage, offload=offload),
            results.ranks,
            dtype="float32",
        )
        trained.train()
        for used in (("left", "right"), ("left",), ("left",)):
            trained.model.used = used  # type: ignore[assignment]
            trained.backward(trained.forward(idle_row()))
            trained.step(0.05)
        results.weights[f"branches {name_of(stage, offload=offload)}"] = trained.state_dict()


def run_resumed(results: Results, problem: Problem, path: str, out: Path, stage: int) -> None:
    """A step after a checkpoint, by the engine that saved it and by fresh ones, offloaded or not, that loaded it."""
    folder = out / f"zero{stage}"
    if results.ranks.is_main:
        folder.mkdir()

    def made(*, offload: bool) -> TrainedModel:
        return causal_lm(path, stage, CONFIG.train, results.ranks, ema_decay=EMA_DECAY, offload=offload)

    def goes_on(name: str, trained: TrainedModel) -> None:
        results.numbers[f"{name} zero{stage}"] = engine.take(trained, problem.demonstrations[1], 3)
        results.weights[f"{name} zero{stage}"] = trained.state_dict()

    saved = made(offload=True)
    engine.take(saved, problem.demonstrations[0], 1)
    discard(saved, problem.demonstrations[2])
    results.ranks.barrier()
    saved.save(folder)
    fresh: dict[str, Callable[[], TrainedModel]] = {
        "resumed": lambda: made(offload=True),
        "resumed on the device": lambda: made(offload=False),
    }
    goes_on("uninterrupted", saved)
    for name, make in fresh.items():
        trained = make()
        trained.load(folder)
        goes_on(name, trained)


def run_bad_role(results: Results, problem: Problem, paths: dict[str, str], stage: int, *, offload: bool) -> None:
    """Shared roles: the gradient of one adapter of the actor is not finite on the last rank, in the second step."""
    name = f"{UNCHECKED} {name_of(stage, offload=offload)}"
    roles = shared_roles(paths, stage, results.ranks, offload=offload, precision=UNCHECKED)
    take(roles, problem.demonstrations[0], BOTH, BOTH)
    if results.ranks.rank == results.ranks.world_size - 1:
        backbone = roles.updates.backbone  # type: ignore[union-attr]
        spoilt = next(each for key, each in backbone.named_parameters() if "lora_B.actor" in key)
        spoilt.register_hook(lambda gradient: gradient * torch.nan)
    results.weights[f"before role {name}"] = weights_of(roles)
    message = ""
    try:
        take(roles, problem.demonstrations[1], BOTH, BOTH)
    except NonFiniteError as error:
        message = str(error)
    results.numbers[f"role {name}"] = results.ranks.gather(message)
    results.weights[f"after role {name}"] = weights_of(roles)


def run_warm_up(results: Results, problem: Problem, paths: dict[str, str], stage: int) -> None:
    """Shared roles: both learn, the critic alone, a gradient of the actor dropped, both again."""
    first, second, third = problem.demonstrations
    for offload in (False, True):
        name = name_of(stage, offload=offload)
        roles = shared_roles(paths, stage, results.ranks, offload=offload)
        plan = ((first, BOTH, BOTH), (second, BOTH, CRITIC), (third, ("actor",), ()), (second, BOTH, BOTH))
        norms, actors = [], []
        for batch, learning, stepped in plan:
            norms.append({role: each.grad_norm for role, each in take(roles, batch, learning, stepped).items()})
            actors.append({key: value for key, value in weights_of(roles).items() if key.startswith("actor")})
        results.numbers[f"norms {name}"] = norms
        results.numbers[f"actor still {name}"] = [
            all(torch.equal(actors[step][key], value) for key, value in actors[step - 1].items()) for step in (1, 2, 3)
        ]
        results.weights[f"roles {name}"] = weights_of(roles)


if __name__ == "__main__":
    main()
