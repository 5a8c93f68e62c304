"""One part of the GPU benchmark, in a process of its own: what it leaves on the card ends with it.

python sides/gpu_part.py PART SETTING RESULT
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from flops import Work, training_flops
from gpu_models import Bench
from gpu_setting import Setting

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import RewardConfig, SftConfig
from rlhf.config.sections import SamplingSection
from rlhf.data.packing import pack_sequences, pack_trees, trees_of
from rlhf.data.tokenizer import load_tokenizer
from rlhf.engine.deepspeed import InferenceModel, TrainedModel
from rlhf.engine.ranks import Ranks, session
from rlhf.plan.roles import stage_shapes
from rlhf.rollout.transformers import TransformersRollout
from rlhf.train.policy.experience import draw_answers, gather_experience
from rlhf.train.policy.reward_sources import RewardSources
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.update import update
from rlhf.train.reward import reward_step
from rlhf.train.schedules import Schedule
from rlhf.train.sft import sft_step

NO_EOS = -1  # every answer has its full length
FLAT = Schedule(total=100, warmup=1, kind="constant", floor=1.0)
Figures = dict[str, Any]


def sft(bench: Bench, ranks: Ranks, attention: str) -> Figures:
    """Steps of stage 1 with all weights, at ZeRO 0."""
    sizes, setting = bench.setting.sizes, bench.setting
    config = SftConfig.model_validate(
        {
            "model": {"path": setting.folder, "dtype": setting.dtype, "attention": attention},
            "train": {"batch_size": sizes.sequences, "micro_tokens": sizes.micro_tokens},
            "data": {"max_length": sizes.longest},
            "log": {"samples_every_steps": None},
        }
    )
    trained = TrainedModel(bench.language(attention), config.train, config.deepspeed, ranks, dtype=setting.dtype)
    trained.train()
    batch = bench.sequences()
    rows = [pack_sequences([item]) for item in batch]
    work = Work.of_rows((row.segments, len(row.positions)) for row in rows)
    seconds = _median(bench, lambda: sft_step(trained, batch, config, FLAT, 1))
    return _training_figures(seconds, work, training_flops(stage_shapes(config)["model"], work), bench.peak(config))


def reward(bench: Bench, ranks: Ranks) -> Figures:
    """Steps of stage 2 with all weights, at ZeRO 0."""
    sizes, setting = bench.setting.sizes, bench.setting
    attention = bench.attention()
    config = RewardConfig.model_validate(
        {
            "model": {"path": setting.folder, "dtype": setting.dtype, "attention": attention},
            "train": {"batch_size": sizes.rankings, "micro_tokens": sizes.micro_tokens},
            "data": {"max_length": sizes.longest, "max_answers": sizes.answers},
        }
    )
    trained = TrainedModel(bench.scalar(attention), config.train, config.deepspeed, ranks, dtype=setting.dtype)
    trained.train()
    batch = bench.rankings()
    row = pack_trees(trees_of(batch))
    work = Work.of_rows([(row.segments, len(row.positions))])
    seconds = _median(bench, lambda: reward_step(trained, batch, config, FLAT, 1))
    flops = training_flops(stage_shapes(config)["model"].as_scalar(), work)
    figures = _training_figures(seconds, work, flops, bench.peak(config))
    return {"attention": attention, "rankings_per_s": len(batch) / seconds, **figures}


def decode(bench: Bench, ranks: Ranks) -> Figures:
    """Answers of full length to prompts of one length, so that every step decodes all slots."""
    sizes, found = bench.setting.sizes, {}
    model = bench.language(bench.attention()).eval().model
    for slots in sizes.slots:
        prompts = [prompt.ids for prompt in bench.prompts(slots)]

        def drawn(count: int, slots: int = slots, prompts: list[Any] = prompts) -> None:
            sampling = SamplingSection(max_new_tokens=count, max_prompt_tokens=sizes.prompt, batch_size=slots)
            streams = [(number,) for number in range(slots)]
            TransformersRollout(model, NO_EOS).generate(prompts, streams, sampling)

        drawn(sizes.new_tokens)
        first, whole = bench.timed(lambda: drawn(1)), bench.timed(lambda: drawn(sizes.new_tokens))
        found[str(slots)] = {
            "step_ms": 1000 * (whole - first) / (sizes.new_tokens - 1),
            "prefill_ms": 1000 * first,
            "tokens_per_s": slots * sizes.new_tokens / whole,
        }
    return {"slots": found, **bench.held()}


def ppo(bench: Bench, ranks: Ranks) -> Figures:
    """Iterations of stage 3 with four models, by part; all weights of actor and critic learn, at ZeRO 0."""
    sizes, setting = bench.setting.sizes, bench.setting
    attention, dtype, path = bench.attention(), setting.dtype, setting.folder
    config = PpoConfig.model_validate(
        {
            "model": {"dtype": dtype, "attention": attention},
            "actor": {"path": path},
            "reward": {"path": path},
            "train": {"batch_size": sizes.rollout // 2, "micro_tokens": sizes.micro_tokens},
            "ppo": {"rollout_size": sizes.rollout, "epochs": 1},
            "sampling": {
                "max_new_tokens": sizes.new_tokens,
                "max_prompt_tokens": sizes.prompt,
                "batch_size": sizes.rollout,
            },
        }
    )
    section = config.deepspeed
    actor = TrainedModel(bench.language(attention), config.train, section, ranks, dtype=dtype)
    critic = TrainedModel(bench.scalar(attention), config.critic, section, ranks, dtype=dtype)
    reference = InferenceModel(bench.language(attention), section, ranks, dtype=dtype)
    scorer = InferenceModel(bench.scalar(attention), section, ranks, dtype=dtype)
    roles, tokenizer = Roles(actor, critic, reference, scorer), load_tokenizer(path, "kullm")
    sources = RewardSources(config, ranks, (tokenizer, tokenizer), scorer, ())
    parts: dict[str, list[float]] = {"generation": [], "scoring": [], "update": []}
    made: dict[str, Any] = {}

    def iterate(step: int) -> None:
        prompts = bench.prompts(sizes.rollout)
        actions: dict[str, Callable[[], Any]] = {
            "generation": lambda: made.update(samples=draw_answers(actor, tokenizer, prompts, config, step)),
            "scoring": lambda: made.update(done=gather_experience(made["samples"], roles, sources, config, 0.05)),
            "update": lambda: update(roles, made["done"].samples, config, 1.0, step, kl_coefficient=0.05),
        }
        for name, action in actions.items():
            parts[name].append(bench.timed(action))

    for step in range(sizes.steps + 1):
        iterate(step + 1)
    found = {f"{name}_s": statistics.median(seconds[1:]) for name, seconds in parts.items()}
    whole = sum(found.values())
    return {
        "attention": attention,
        **found,
        "iteration_s": whole,
        "samples_per_s": sizes.rollout / whole,
        **bench.peak(config),
    }


def _median(bench: Bench, step: Callable[[], Any]) -> float:
    """Seconds of a step, after one that is not counted."""
    bench.timed(step)
    return statistics.median(bench.timed(step) for _ in range(bench.setting.sizes.steps))


def _training_figures(seconds: float, work: Work, flops: int, peak: dict[str, float]) -> Figures:
    return {"step_s": seconds, "tokens_per_s": work.tokens / seconds, "flops_per_s": flops / seconds, **peak}


PARTS: dict[str, Callable[[Bench, Ranks], Figures]] = {
    "sft varlen": lambda bench, ranks: sft(bench, ranks, "varlen"),
    "sft sdpa": lambda bench, ranks: sft(bench, ranks, "sdpa"),
    "reward": reward,
    "decode": decode,
    "ppo": ppo,
}


def main(part: str, setting: str, result: str) -> None:
    with session(17) as ranks:
        bench = Bench(Setting.read(Path(setting)), ranks.device)
        missing = bench.obstacle() if part == "sft varlen" else ""
        figures = {"skipped": missing} if missing else PARTS[part](bench, ranks)
        if ranks.rank > 0:
            return
        card = torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "CPU"
        Path(result).write_text(json.dumps({"card": card, **figures}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
