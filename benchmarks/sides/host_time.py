"""The host's own time in a step on the pretend GPU: host_time.py SETTING RESULT, from the root of the repository.

Time inside operators is left out, whoever computes them: on a GPU they run beside the host. Left are Python, autograd's
bookkeeping and the data structures; launches, which a GPU's host pays for too, are counted and not timed.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import pretend_gpu  # isort: skip  # it patches torch
from tests.support.pretend_engine import plain_engine

sys.path.insert(0, str(Path(__file__).parents[1]))
from gpu_models import Bench
from gpu_setting import Setting

import rlhf.engine.deepspeed as engine
from rlhf.config.schema import RewardConfig, SftConfig
from rlhf.config.sections import SamplingSection
from rlhf.data.packing import PackedRow
from rlhf.engine.deepspeed import TrainedModel
from rlhf.engine.ranks import Ranks
from rlhf.rollout.transformers import TransformersRollout
from rlhf.train.reward import reward_step
from rlhf.train.schedules import Schedule
from rlhf.train.sft import sft_step

RANKS = Ranks(0, 0, 1, pretend_gpu.DEVICE)
FLAT = Schedule(total=100, warmup=1, kind="constant", floor=1.0)
NO_EOS = -1
LAUNCHES_NOTHING = {"detach", "view", "t", "transpose", "expand", "slice", "unsqueeze", "select", "alias", "permute"}


class Spent:
    """Seconds inside operators and their number, of the outermost calls; and packed rows that went to the device."""

    def __init__(self) -> None:
        self.clear()
        self._inside = threading.local()

    def clear(self) -> None:
        self.seconds, self.launches, self.rows = 0.0, 0, 0

    def watch(self) -> None:
        dispatch, move = pretend_gpu._dispatch, PackedRow.to

        def timed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            if getattr(self._inside, "operator", False):
                return dispatch(function, args, kwargs)
            self._inside.operator, started = True, time.perf_counter()
            try:
                return dispatch(function, args, kwargs)
            finally:
                self._inside.operator = False
                self.seconds += time.perf_counter() - started
                name = function._schema.name.partition("::")[2]
                self.launches += name.strip("_") not in LAUNCHES_NOTHING and not name.endswith("view")

        def moved(row: PackedRow, device: Any) -> PackedRow:
            self.rows += 1
            return move(row, device)

        pretend_gpu._dispatch, PackedRow.to = timed, moved  # type: ignore[method-assign]


SPENT = Spent()


def host_seconds(action: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Medians over runs after one that is not counted."""
    found: list[tuple[float, int]] = []
    for number in range(repeats + 1):
        SPENT.clear()
        with pretend_gpu.PretendGpu():
            started = time.perf_counter()
            action()
            wall = time.perf_counter() - started
        if number:
            found.append((wall - SPENT.seconds, SPENT.launches))
    return {"host_s": statistics.median(each[0] for each in found), "launches": found[-1][1], "rows": SPENT.rows}


def there(model: Any) -> Any:
    """The model on the pretend GPU."""
    with pretend_gpu.PretendGpu():
        return model.to(pretend_gpu.DEVICE)


def training(bench: Bench) -> dict[str, dict[str, float]]:
    """Steps of stages 1 and 2 per micro-batch, of as many tokens as the setting says."""
    sizes, found = bench.setting.sizes, {}
    head = {"train": {"micro_tokens": sizes.micro_tokens, "batch_size": sizes.sequences}, "data": {"max_length": 4096}}
    sft, reward = SftConfig.model_validate(head), RewardConfig.model_validate(head)
    for name, model, step, rows, config in (
        ("stage 1", there(bench.language("sdpa")), sft_step, bench.sequences(), sft),
        ("stage 2", there(bench.scalar("sdpa")), reward_step, bench.rankings(), reward),
    ):
        with pretend_gpu.PretendGpu():
            trained = TrainedModel(model, config.train, config.deepspeed, RANKS, dtype="float32")
        trained.train()
        spent = host_seconds(lambda t=trained, s=step, r=rows, c=config: s(t, r, c, FLAT, 1), sizes.steps)
        found[f"{name}, per micro-batch"] = {key: spent[key] / spent["rows"] for key in ("host_s", "launches")}
    return found


def decoding(bench: Bench) -> dict[str, dict[str, float]]:
    """A decode step with all slots busy, and per token of it."""
    sizes, found = bench.setting.sizes, {}
    model = there(bench.language("sdpa")).eval().model
    for slots in sizes.slots:
        prompts = [prompt.ids for prompt in bench.prompts(slots)]

        def drawn(count: int, slots: int = slots, prompts: list[Any] = prompts) -> None:
            sampling = SamplingSection(max_new_tokens=count, max_prompt_tokens=sizes.prompt, batch_size=slots)
            TransformersRollout(model, NO_EOS).generate(prompts, [(number,) for number in range(slots)], sampling)

        first, whole = (host_seconds(lambda n=n: drawn(n), sizes.steps) for n in (1, sizes.new_tokens))
        steps = sizes.new_tokens - 1
        step = {key: (whole[key] - first[key]) / steps for key in ("host_s", "launches")}
        found[f"decode step, {slots} slots"] = step
        found[f"token, {slots} slots"] = {key: value / slots for key, value in step.items()}
    return found


def main(setting: str, result: str) -> None:
    engine.wrapped_engine = plain_engine  # type: ignore[assignment]
    import torch

    SPENT.watch()
    bench = Bench(Setting.read(Path(setting)), torch.device("cpu"))
    Path(result).write_text(json.dumps({**training(bench), **decoding(bench)}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
