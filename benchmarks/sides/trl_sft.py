"""TRL's SFTTrainer on ready-made ids and labels. Runs in TRL's environment."""

from __future__ import annotations

import json

from datasets import Dataset
from memory import PeakMemory
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.gpt_neox import modeling_gpt_neox  # noqa: F401 - an import, to be counted as one
from trl import SFTConfig, SFTTrainer
from trl_common import ALIKE, Clock, parse


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
        output_dir=str(arguments.result.parent / "trl"),
        per_device_train_batch_size=arguments.batch,
        learning_rate=arguments.lr,
        seed=arguments.seed,
        max_steps=arguments.max_steps,
        packing=arguments.mode == "packed",
        train_sampling_strategy="group_by_length" if arguments.mode == "grouped" else "random",
        **ALIKE,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(arguments.base, dtype="float32"),
        args=config,
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(arguments.base),
    )
    clock = Clock(lambda examples, batch: {"tokens": sum(len(each["input_ids"]) for each in examples)})
    trainer.data_collator = clock.collator(trainer.data_collator)
    trainer.add_callback(clock)
    trainer.train()
    if arguments.save:
        trainer.save_model(arguments.save)
    clock.write(arguments.result, peak_mib=memory.peak_mib())


if __name__ == "__main__":
    main()
