"""The quickstart's result: the SFT model and the PPO model on the same held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.artifacts.files import read_json
from rlhf.config.ppo import PpoConfig
from rlhf.data.encode import EncodedPrompt, Encoder
from rlhf.data.records import Prompt
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.demo.world.grammar import korean_world
from rlhf.demo.world.rules import REPLACEMENT, Rules, korean_rules
from rlhf.evaluate.answers.measures import measure
from rlhf.evaluate.answers.policy import GeneratedAnswer, answer_logprobs, answer_prompts
from rlhf.models.loading import PackedCausalLM, PackedScalarModel, load_causal_lm, load_scalar_model
from rlhf.models.scoring import answer_scores
from rlhf.train.inputs import load

Summary = dict[str, Any]
Answers = Mapping[str, Sequence[GeneratedAnswer]]  # before and after stage 3
NUM_SAMPLES = 4
TOP_P = 0.95  # of the answers that are shown and measured, as one would serve them; the KL is of the whole distribution
NUM_SHOWN = 6
MAX_PROMPTS = 100
EVAL_SEED = 4242
NUM_SHIFTS = 8
BEST_OF = 16


def measure_policy(out: Path, config: PpoConfig) -> tuple[Summary, Answers]:
    """Both policies on the held-out prompts, with the same decoding settings and random streams; and the answers."""
    served = config.sampling.model_copy(update={"top_p": TOP_P})
    tokenizer = load_tokenizer(str(out / "ppo" / "model"))
    encoder = Encoder(tokenizer, config.sampling.max_prompt_tokens)
    prompts = load(config.data, config.data.eval, Prompt, encoder.prompts, key="data.eval", limit=MAX_PROMPTS).items
    stages = {"before": "sft", "after": "ppo"}
    policies = {name: load_causal_lm(str(out / stage / "model")) for name, stage in stages.items()}
    reward = load_scalar_model(str(out / "reward" / "model"))
    answers = {
        name: answer_prompts(policy, tokenizer, prompts, served, seed=EVAL_SEED, num_samples=NUM_SAMPLES)
        for name, policy in policies.items()
    }
    whole = answer_prompts(policies["after"], tokenizer, prompts, config.sampling, seed=EVAL_SEED, num_samples=1)
    pairs = [(answer.prompt.ids, answer.ids) for answer in whole]
    logprobs = {
        name: answer_logprobs(policy, pairs, temperature=config.sampling.temperature)
        for name, policy in policies.items()
    }
    summary = {
        **{name: answer_figures(answers[name], reward) for name in policies},
        "kl": float(np.subtract(logprobs["after"], logprobs["before"]).mean()),
        "best_of_16": best_of_summary(out / "ppo" / "control.json"),
        "reference_margin": {name: reference_margin(policy, tokenizer, prompts) for name, policy in policies.items()},
        "decoding": served.model_dump(),
        "num_prompts": len(prompts),
        "samples": samples(answers),
    }
    return summary, answers


def samples(answers: Answers) -> list[Summary]:
    """The first answers of both to the first prompts, with the English of those that the demo knows."""
    examples = (answers[name][: NUM_SHOWN * NUM_SAMPLES : NUM_SAMPLES] for name in ("before", "after"))
    return [
        {
            "prompt": before.prompt.text,
            "gloss": korean_world().shown.get(before.prompt.text, ""),
            "before": before.text,
            "after": after.text,
        }
        for before, after in zip(*examples, strict=True)
    ]


def answer_figures(answers: Sequence[GeneratedAnswer], reward: PackedScalarModel) -> Summary:
    """Every measure and the mean score of one policy's answers."""
    means = measure([[each.text] for each in answers], [[each.finished] for each in answers]).means()
    figures: Summary = {name: round(value, 4) for name, value in means.items()} | {"num_answers": len(answers)}
    figures["reward"] = float(np.mean(answer_scores(reward, [(each.prompt.ids, each.ids) for each in answers])))
    return figures


def best_of_summary(control: Path) -> Summary | None:
    """PPO and best-of-16 of the SFT model on the same prompts, from the control group of stage 3; None without one.

    Means are in reward units, the KL of each to the SFT model in nats per answer.
    """
    card = read_json(control) if control.is_file() else {"best_of_n": []}
    for arm in card["best_of_n"]:
        if arm["n"] == BEST_OF:
            policy = card["policy"]
            return {
                "mean": arm["mean"],
                "kl": arm["kl"],
                "ppo_mean": policy["mean"],
                "ppo_kl": policy["kl"],
                "sft_mean": card["reference"]["mean"],
                "num_prompts": card["num_prompts"],
            }
    return None


def world_summary(answers: Answers, *, own: bool) -> Summary:
    """What the demo's rules say of both policies' answers; with data of one's `own` they know nothing of its words.

    fluency: words that are words of the demo's world; on_topic: answers that name what the prompt is about;
    answers_prompt: answers with a line that the world has for this prompt; rude_lines: answers with a line that only
    the rude say; replacement_characters: how many there are.
    """
    torn = {name: sum(each.text.count(REPLACEMENT) for each in drawn) for name, drawn in answers.items()}
    figures = {} if own else {name: world_figures(drawn, korean_rules()) for name, drawn in answers.items()}
    keys = ("fluency", "on_topic", "answers_prompt", "rude_lines")
    return {
        **{key: {name: each[key] for name, each in figures.items()} or None for key in keys},
        "replacement_characters": torn,
    }


def world_figures(answers: Sequence[GeneratedAnswer], rules: Rules) -> dict[str, float]:
    """The shares of `world_summary` of one policy's answers."""
    words = np.array([rules.known_words(each.text) for each in answers])
    return {
        "fluency": float(words[:, 0].sum() / words[:, 1].sum()),
        "on_topic": float(np.mean([rules.on_topic(each.prompt.text, each.text) for each in answers])),
        "answers_prompt": float(np.mean([rules.answers(each.prompt.text, each.text) for each in answers])),
        "rude_lines": float(np.mean(["rude" in rules.registers(each.text) for each in answers])),
    }


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
