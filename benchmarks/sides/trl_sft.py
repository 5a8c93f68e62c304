"""TRL's SFTTrainer on ready-made ids and labels. Runs in TRL's environment."""

from __future__ import annotations

import json

from datasets import Dataset
from memory import PeakMemory
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.gpt_neox import modeling_gpt_neox  # noqa: F401 - an import, to be counted as one
from trl import SFTConfig, SFTTrainer
from trl_common import Clock, parse, settings


def main() -> None:
    arguments = parse()
    memory = PeakMemory()
    rows = json.loads(arguments.rows.read_text())
    labels = [
        [token if answer else -100 for token, answer in zip(ids, mask, strict=True)]
        for ids, mask in zip(rows["ids"], rows["mask"], strict=True)
    ]
    dataset = Dataset.from_dict({"input_ids": rows["ids"], "labels": labels})
    config = SFTConfig(
        packing=arguments.mode == "packed",
        train_sampling_strategy="group_by_length" if arguments.mode == "grouped" else "random",
        **settings(arguments),
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(arguments.base, dtype="float32"),
        args=config,
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(arguments.base),
    )
    clock = Clock(lambda examples, batch: {"tokens": sum(len(each["input_ids"]) for each in examples)})
    clock.run(trainer, arguments, memory)


if __name__ == "__main__":
    main()
