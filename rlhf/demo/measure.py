"""The quickstart's result: the SFT model and the PPO model on the same held-out prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rlhf.artifacts.files import read_json
from rlhf.config.schema import PpoConfig
from rlhf.data.encode import EncodedPrompt, Encoder
from rlhf.data.records import Prompt
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.evaluate.answers.measures import MEASURES, measure
from rlhf.evaluate.answers.policy import GeneratedAnswer, answer_logprobs, answer_prompts
from rlhf.models.loading import PackedCausalLM, PackedScalarModel, load_causal_lm, load_scalar_model
from rlhf.models.scoring import answer_scores
from rlhf.train.inputs import load

Summary = dict[str, Any]
NUM_SAMPLES = 4
MAX_PROMPTS = 100
EVAL_SEED = 4242
NUM_SHIFTS = 8
PRINTED = ("polite", "rude", "distinct2", "distinct_answers", "repeated", "eos", "length_chars", "reward")


def reward_summary(model: Path) -> Summary:
    """Held-out accuracy from the report card that stage 2 left."""
    card = read_json(model / "report_card.json")
    return {
        "accuracy": card["accuracy"],
        "accuracy_interval": [card["low"], card["high"]],
        "accuracy_neighbours": card["neighbours"]["accuracy"],
        "accuracy_by_source": {name: each["accuracy"] for name, each in card["by_source"].items()},
        "longer_answer_accuracy": card["longer_answer"]["accuracy"],
        "num_pairs": card["num_pairs"],
    }


def measure_policy(out: Path, config: PpoConfig) -> Summary:
    """Both policies on the held-out prompts, with the same decoding settings and random streams."""
    tokenizer = load_tokenizer(str(out / "ppo" / "model"))
    encoder = Encoder(tokenizer, config.sampling.max_prompt_tokens)
    prompts = load(config.data, config.data.eval, Prompt, encoder.prompts, key="data.eval", limit=MAX_PROMPTS).items
    stages = {"before": "sft", "after": "ppo"}
    policies = {name: load_causal_lm(str(out / stage / "model")) for name, stage in stages.items()}
    reward = load_scalar_model(str(out / "reward" / "model"))
    answers = {
        name: answer_prompts(policy, tokenizer, prompts, config.sampling, seed=EVAL_SEED, num_samples=NUM_SAMPLES)
        for name, policy in policies.items()
    }
    pairs = [(answer.prompt.ids, answer.ids) for answer in answers["after"]]
    logprobs = {
        name: answer_logprobs(policy, pairs, temperature=config.sampling.temperature)
        for name, policy in policies.items()
    }
    examples = (answers[name][: 3 * NUM_SAMPLES : NUM_SAMPLES] for name in policies)
    return {
        **{name: answer_figures(answers[name], reward) for name in policies},
        "kl": float(np.subtract(logprobs["after"], logprobs["before"]).mean()),
        "reference_margin": {name: reference_margin(policy, tokenizer, prompts) for name, policy in policies.items()},
        "decoding": config.sampling.model_dump(),
        "num_prompts": len(prompts),
        "samples": [
            {"prompt": before.prompt.text, "before": before.text, "after": after.text}
            for before, after in zip(*examples, strict=True)
        ],
    }


def answer_figures(answers: list[GeneratedAnswer], reward: PackedScalarModel) -> Summary:
    """Every measure and the mean score of one policy's answers."""
    means = measure([[each.text] for each in answers], [[each.finished] for each in answers]).means()
    figures: Summary = {name: round(value, 4) for name, value in means.items()} | {"num_answers": len(answers)}
    figures["reward"] = float(np.mean(answer_scores(reward, [(each.prompt.ids, each.ids) for each in answers])))
    return figures


def reference_margin(policy: PackedCausalLM, tokenizer: ChatTokenizer, prompts: list[EncodedPrompt]) -> Summary | None:
    """Log-likelihood gain of the references, true over shuffled prompt (nats per token), and how often it is positive.

    It shows whether answers depend on the prompt: each reference is scored under its own and under several others. None
    with fewer than two references.
    """
    known = [prompt for prompt in prompts if prompt.reference]
    if len(known) < 2:
        return None
    answers = [
        np.asarray([*ids, tokenizer.eos_id], np.int32)[-512:]
        for ids in tokenizer.token_ids([prompt.reference for prompt in known])
    ]

    def logprobs(shift: int) -> np.ndarray:
        shifted = [*known[shift:], *known[:shift]]
        pairs = [(prompt.ids, answer) for prompt, answer in zip(shifted, answers, strict=True)]
        return np.asarray(answer_logprobs(policy, pairs, temperature=1.0))

    others = np.mean([logprobs(shift) for shift in range(1, min(NUM_SHIFTS + 1, len(known)))], axis=0)
    margins = (logprobs(0) - others) / np.array([len(answer) for answer in answers])
    return {"nats_per_token": float(margins.mean()), "share_right_above_wrong": float((margins > 0).mean())}


def print_summary(summary: Summary, out: Path) -> None:
    console = Console()
    ppo, reward = summary["ppo"], summary["reward"]
    table = Table(title=f"{ppo['num_prompts']} held-out prompts, {NUM_SAMPLES} answers each")
    for column in ("", "SFT", "PPO"):
        table.add_column(column, justify="left" if not column else "right")
    titles = {name: known.title for name, known in MEASURES.items()} | {"reward": "reward model's score"}
    for name in PRINTED:
        table.add_row(titles[name], f"{ppo['before'][name]:.3f}", f"{ppo['after'][name]:.3f}")
    console.print(table)
    sft = summary["sft"]
    console.print(f"SFT: held-out loss {sft['eval_loss_before']:.3f} before, {sft['eval_loss']:.3f} after")
    low, high = reward["accuracy_interval"]
    console.print(
        f"reward model: accuracy {reward['accuracy']:.3f} [{low:.3f}, {high:.3f}] on held-out pairs, neighbouring "
        f"ranks {reward['accuracy_neighbours']:.3f}; baseline: pick the longer answer "
        f"{reward['longer_answer_accuracy']:.3f}"
    )
    console.print(f"KL to the SFT model: {ppo['kl']:.2f} nats per sequence")
    for sample in ppo["samples"]:
        console.print(
            f"\n[bold]{sample['prompt']}[/bold]\n  SFT: {sample['before']}\n  PPO: {sample['after']}", highlight=False
        )
    console.print(f"\n{summary['seconds']:.0f} s in all; everything is in {out}/summary.json")
