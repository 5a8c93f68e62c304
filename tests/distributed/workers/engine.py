"""What two ranks do around their steps: generate with whole weights, save and load, stop before a bad update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from deepspeed.runtime.zero import utils as zero_utils
from torch import Tensor

from rlhf.artifacts.checkpoint import CheckpointStore
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.sections import SamplingSection
from rlhf.data.encode import EncodedSequence
from rlhf.data.packing import pack_sequences
from rlhf.doctor.checks import Check
from rlhf.doctor.proofs import FastPaths, stage_proofs
from rlhf.doctor.proofs_ranks import reduction_proof
from rlhf.engine.deepspeed import TrainedModel
from rlhf.engine.ranks import Ranks, session
from rlhf.errors import ModelError, NonFiniteError
from rlhf.ops.losses import CrossEntropy
from rlhf.rollout.transformers import TransformersRollout
from rlhf.train.run.fast_paths import require_proved
from rlhf.train.run.run import Run
from rlhf.train.sft import evaluate_sft, sft_step
from tests.distributed.problem import EOS, PAD, SCHEDULE, SMALL, STEP_NUMBERS, Problem, sft_config
from tests.distributed.workers.building import Results, arguments, causal_lm
from tests.distributed.workers.sharing import run_resumed_roles

GREEDY = SamplingSection(temperature=0, max_new_tokens=10, batch_size=2)
CONFIG = sft_config(SMALL)


def main() -> None:
    given, out = arguments()
    problem, paths = given["problem"], given["paths"]
    with session(seed=0) as ranks:
        results = Results(ranks)
        run_proofs(results)
        run_generation(results, problem, paths["neox"])
        run_requests(results, problem, paths["neox"])
        for stage in (0, 1, 2, 3):
            run_resumed(results, problem, paths["neox"], out, stage, lora=False)
            run_poisoned(results, problem, paths["poisoned"], stage)
            trained = causal_lm(paths["neox"], stage, CONFIG.train, results.ranks)
            run_bad_gradient(results, problem, trained, f"gradient zero{stage}")
        for stage in (0, 3):
            run_resumed(results, problem, paths["neox"], out, stage, lora=True)
        run_resumed_roles(results, problem, paths, out)
        results.numbers["unseen types"] = zero_utils.warned
        results.write(out)


def take(trained: TrainedModel, batch: Sequence[EncodedSequence], step: int) -> dict[str, float]:
    trained.train()
    return sft_step(trained, batch, CONFIG, SCHEDULE, step)


def run_proofs(results: Results) -> None:
    """The all-reduce proved, with every rank and with one that is lost; then one rank's failed check."""
    ranks = results.ranks
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    found = [check for dtype in dtypes for check in stage_proofs(ranks, dtype, FastPaths())]
    results.numbers["all-reduce"] = ranks.gather([check.state for check in found])
    with patch("rlhf.doctor.proofs_ranks.summed", lambda values, _: values):
        results.numbers["lost rank"] = ranks.gather(reduction_proof(ranks, torch.float32).state)
    folder = RunFolder(Path("unused"))
    run: Run[Any] = Run("sft", CONFIG, ranks, folder, CheckpointStore(folder.path, ranks, keep_last=1), None, False)
    message = ""
    try:
        require_proved(run, [Check("kernel", "failed", "off by 3", "turn it")] if ranks.rank == 1 else [])
    except ModelError as error:
        message = f"{error.problem}; {error.fix}"
    results.numbers["failed proof"] = ranks.gather(message)


def run_generation(results: Results, problem: Problem, path: str) -> None:
    """Three steps at ZeRO 3: with nothing, a generation, or a failed one after the first."""
    for name, pause in (("nothing", None), ("generation", generate), ("failure", fail)):
        trained = causal_lm(path, 3, CONFIG.train, results.ranks)
        take(trained, problem.demonstrations[0], STEP_NUMBERS[0])
        if pause is not None:
            results.weights[f"before {name}"] = trained.state_dict()
            before = num_hooks(trained)
            results.numbers[name] = pause(trained, problem)
            results.numbers[f"hooks around {name}"] = [before, num_hooks(trained)]
            results.numbers[f"training after {name}"] = trained.model.training
        for number in (1, 2):
            take(trained, problem.demonstrations[number], STEP_NUMBERS[number])
        results.weights[f"after {name}"] = trained.state_dict()


def num_hooks(trained: TrainedModel) -> int:
    """What gathers and releases the weights of each layer; without them DeepSpeed gathers all and releases none."""
    return sum(len(each._forward_pre_hooks) + len(each._forward_hooks) for each in trained.model.modules())


def generate(trained: TrainedModel, problem: Problem) -> dict[str, Any]:
    """Rank 0 answers more prompts than rank 1: no collective may be left in a decoding step."""
    prompts = [sample.prompt.ids for sample in problem.answered]
    mine = prompts[:6] if trained.ranks.is_main else prompts[6:]
    with trained.full_weights() as model:
        rollout = TransformersRollout(model, EOS)
        drawn = rollout.generate(mine, [(item,) for item in range(len(mine))], GREEDY)
        logits = model(input_ids=torch.from_numpy(prompts[0].astype(np.int64))[None]).logits[0, -1]
        logits = logits.detach().tolist()
    answers = trained.ranks.gather([each.tolist() for each in drawn.tokens])
    return {"answers": answers[0] + answers[1], "logits": logits}


def fail(trained: TrainedModel, problem: Problem) -> str:
    """What a sampling error inside the context leaves."""
    try:
        with trained.full_weights():
            raise ValueError("a prompt nobody can answer")
    except ValueError as error:
        return str(error)


def run_requests(results: Results, problem: Problem, path: str) -> None:
    """How many weights are whole after the forward and the backward pass of each request at ZeRO 3."""
    trained = causal_lm(path, 3, CONFIG.train, results.ranks)
    row = pack_sequences(problem.demonstrations[0])
    requests: dict[str, Callable[[], Tensor]] = {
        "logits": lambda: trained.forward(row).sum(),
        "logprobs": lambda: sum(each.sum() for each in trained.logprobs(row, 0.7, with_entropy=True)),
        "loss": lambda: trained.loss(row, 1.0).loss,
    }
    trained.train()
    for name, ask in requests.items():
        output = ask()
        counts = [num_whole(trained)]
        trained.backward(output)
        results.numbers[f"whole after {name}"] = [*counts, num_whole(trained)]
        trained.discard()


def num_whole(trained: TrainedModel) -> int:
    return sum(each.ds_status.name == "AVAILABLE" for each in trained.model.parameters())


def run_resumed(results: Results, problem: Problem, path: str, out: Path, stage: int, *, lora: bool) -> None:
    """Steps 2 and 3 after a checkpoint, by the engine that saved it and by a fresh one that loaded it."""
    name = f"zero{stage} lora" if lora else f"zero{stage}"
    folder = out / name
    if results.ranks.is_main:
        folder.mkdir()
    saved = causal_lm(path, stage, CONFIG.train, results.ranks, lora=lora, ema_decay=0.9)
    take(saved, problem.demonstrations[0], 1)
    results.ranks.barrier()
    saved.save(folder)
    results.weights[f"saved {name}"] = saved.state_dict()
    loaded = causal_lm(path, stage, CONFIG.train, results.ranks, lora=lora, ema_decay=0.9)
    loaded.load(folder)
    for which, trained in (("uninterrupted", saved), ("resumed", loaded)):
        steps = [take(trained, problem.demonstrations[1], 2)]
        if which == "uninterrupted":
            with trained.averaged():  # leaves no trace
                evaluate_sft(trained, problem.demonstrations[0], CONFIG)
        steps.append(take(trained, problem.demonstrations[2], 3))
        results.numbers[f"{which} {name}"] = steps
        results.weights[f"{which} {name}"] = trained.state_dict()
        with trained.averaged():
            results.weights[f"average of {which} {name}"] = trained.state_dict()


def run_poisoned(results: Results, problem: Problem, path: str, stage: int) -> None:
    """A good step, then one whose first sequence reads the token that gives NaN."""
    trained = causal_lm(path, stage, CONFIG.train, results.ranks)
    take(trained, problem.demonstrations[0], 1)
    first, *others = problem.demonstrations[1]
    bad = replace(first, ids=np.insert(first.ids[1:], 0, PAD).astype(np.int32))
    attempt(results, f"loss zero{stage}", trained, lambda: take(trained, [bad, *others], 2))


def run_bad_gradient(results: Results, problem: Problem, trained: TrainedModel, name: str) -> None:
    """The loss is finite everywhere; the last rank's gradient is not."""
    take(trained, problem.demonstrations[0], 1)
    loss = trained.loss

    def spoilt(row: Any, total: float, **options: Any) -> CrossEntropy:
        entropy = loss(row, total, **options)
        if results.ranks.rank == results.ranks.world_size - 1:
            entropy.loss.register_hook(lambda gradient: gradient * torch.nan)
        return entropy

    trained.loss = spoilt  # type: ignore[method-assign]
    attempt(results, name, trained, lambda: take(trained, problem.demonstrations[1], 2))


def attempt(results: Results, name: str, trained: TrainedModel, action: Callable[[], object]) -> None:
    """Runs what must fail; records each rank's error, and the weights before and after."""
    ranks: Ranks = results.ranks
    results.weights[f"before {name}"] = trained.state_dict()
    message = ""
    try:
        action()
    except NonFiniteError as error:
        message = str(error)
    results.numbers[name] = ranks.gather(message)
    results.weights[f"after {name}"] = trained.state_dict()


if __name__ == "__main__":
    main()
