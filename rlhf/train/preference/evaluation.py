"""What is measured on held-out rows: the loss and the order of answers, and the KL of sampled answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlhf.config.schema import DpoConfig
from rlhf.data.encode import EncodedPrompt
from rlhf.data.packing import trees_of
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.deepspeed import TrainedModel
from rlhf.engine.start import StartingWeights
from rlhf.ops.rewards import kl_estimate
from rlhf.train.policy.experience import answer_alone
from rlhf.train.policy.samples import read_table, response_mask
from rlhf.train.preference.reference import tree_logprobs
from rlhf.train.preference.rows import ReferencedRow, compared_tables
from rlhf.train.preference.step import num_compared, preference_loss, reference_point, summary
from rlhf.train.ranking_rows import scattered

KL_STREAM = 2**31  # random streams apart from those of sample answers


def evaluate_preferences(trained: TrainedModel, rows: Sequence[ReferencedRow], config: DpoConfig) -> dict[str, float]:
    """Loss, accuracy and margin on held-out rows; the last is missing where no row is good, or none is bad."""
    dpo, micro_tokens = config.dpo, config.train.micro_tokens
    kl = reference_point(trained, rows, micro_tokens) if dpo.loss == "kto" else 0.0
    found = tree_logprobs(trained, trees_of([row.item for row in rows]), micro_tokens)
    tables = compared_tables(rows)
    logprobs = scattered(torch.tensor([each for row in found for each in row]), tables["places"], tables["mask"])
    count = torch.tensor(float(num_compared(dpo, rows)))
    totals = preference_loss(dpo, logprobs, tables, count, torch.tensor(kl))
    means = summary([float(each) for each in totals])
    metrics = {"eval/preference_loss": float(totals.loss), "eval/accuracy": means["preference/accuracy"]}
    return metrics | ({"eval/margin": means["preference/margin"]} if "preference/margin" in means else {})


def sampled_kl(
    trained: TrainedModel,
    start: StartingWeights,
    tokenizer: ChatTokenizer,
    prompts: Sequence[EncodedPrompt],
    config: DpoConfig,
) -> float:
    """KL(policy || reference) in nats per sequence, from one answer to each prompt, with the same random streams every
    time: sampled from the whole distribution at temperature 1, whatever `sampling` says."""
    whole = config.sampling.model_copy(update={"temperature": 1.0, "top_k": 0, "top_p": 1.0, "stop": []})
    streams = [(config.run.seed, KL_STREAM, prompt.row) for prompt in prompts]
    with trained.averaged():
        samples = answer_alone(trained, tokenizer, prompts, streams, whole)
        mask = response_mask(samples)

        def logprobs() -> torch.Tensor:
            return read_table(
                samples,
                mask,
                trained.ranks,
                config.train.micro_tokens,
                lambda row: trained.infer_logprobs(row, 1.0).logprobs,
            )

        own = logprobs()
        with start.in_place():
            reference = logprobs()
    return float(kl_estimate(own, reference, mask, kind="k1").sum(1).mean())
