"""TRL's DPOTrainer on ready-made ids, the reference computed before training. Runs in TRL's environment."""

from __future__ import annotations

import json

from datasets import Dataset
from memory import PeakMemory
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.gpt_neox import modeling_gpt_neox  # noqa: F401 - an import, to be counted as one
from trl import DPOConfig, DPOTrainer
from trl_common import Clock, parse, settings


class ReadyMade(DPOTrainer):
    """Takes ids as they are; TRL's own reads text alone."""

    def _prepare_dataset(self, dataset: Dataset, *rest: object) -> Dataset:
        return dataset


def main() -> None:
    arguments = parse()
    memory = PeakMemory()
    columns = json.loads(arguments.rows.read_text())
    more: dict[str, object] = {"train_sampling_strategy": "random"}
    if arguments.mode == "grouped":
        triples = zip(columns["prompt_ids"], columns["chosen_ids"], columns["rejected_ids"], strict=True)
        columns["length"] = [len(prompt) + max(len(one), len(other)) for prompt, one, other in triples]
        more = {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
    config = DPOConfig(**more, **settings(arguments), beta=0.1, precompute_ref_log_probs=True)
    trainer = ReadyMade(
        model=AutoModelForCausalLM.from_pretrained(arguments.base, dtype="float32"),
        args=config,
        train_dataset=Dataset.from_dict(columns),
        processing_class=AutoTokenizer.from_pretrained(arguments.base),
    )
    clock = Clock(lambda examples, batch: {"pairs": len(examples)})
    clock.run(trainer, arguments, memory)


if __name__ == "__main__":
    main()
