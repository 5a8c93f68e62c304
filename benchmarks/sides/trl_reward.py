"""TRL's RewardTrainer on ready-made ids. Runs in TRL's environment."""

from __future__ import annotations

import json

from datasets import Dataset
from memory import PeakMemory
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.gpt_neox import modeling_gpt_neox  # noqa: F401 - an import, to be counted as one
from trl import RewardConfig, RewardTrainer
from trl_common import Clock, parse, settings


def main() -> None:
    arguments = parse()
    memory = PeakMemory()
    pairs = json.loads(arguments.rows.read_text())
    columns = {"chosen_ids": pairs["chosen"], "rejected_ids": pairs["rejected"]}
    more: dict[str, object] = {"train_sampling_strategy": "random"}
    if arguments.mode == "grouped":
        columns["length"] = [max(len(a), len(b)) for a, b in zip(pairs["chosen"], pairs["rejected"], strict=True)]
        more = {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
    config = RewardConfig(
        **more,
        **settings(arguments),
    )
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    model = AutoModelForSequenceClassification.from_pretrained(arguments.base, num_labels=1, dtype="float32")
    model.config.pad_token_id = tokenizer.pad_token_id
    trainer = RewardTrainer(
        model=model, args=config, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer
    )
    clock = Clock(lambda examples, batch: {"pairs": len(examples)})
    clock.run(trainer, arguments, memory)


if __name__ == "__main__":
    main()
