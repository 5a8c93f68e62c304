"""What a run of stage 3 reads: prompts, held-out prompts and demonstrations, and the order they come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf.config.ppo import PpoConfig
from rlhf.data.encode import EncodedPrompt, Encoder
from rlhf.data.loader import RowStream
from rlhf.data.records import Demonstration, Prompt
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.train.inputs import LoadedRows, encode_summary, load, load_train_and_eval
from rlhf.train.policy.update import Demonstrations
from rlhf.train.run.run import Run
from rlhf.train.schedules import Schedule, schedule_of


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The data of a run, the reports on reading it (train, eval, ptx), its order, and the learning-rate schedule."""

    prompts: LoadedRows[EncodedPrompt]
    held_out: LoadedRows[EncodedPrompt]
    demonstrations: Demonstrations | None
    reports: dict[str, list[dict[str, Any]]]
    stream: RowStream
    schedule: Schedule
    last: int


def load_data(run: Run[PpoConfig], tokenizer: ChatTokenizer) -> TrainingData:
    """Reads all data, before any model is loaded."""
    config, data = run.config, run.config.data
    encoder = Encoder(tokenizer, config.sampling.max_prompt_tokens)
    (prompts, summary), (held_out, _) = load_train_and_eval(config, Prompt, encoder, lambda each: each.prompts)
    run.say(f"prompts: {summary}")
    lengths = tuple(map(len, prompts.items)) if data.curriculum == "length" else None
    stream = prompts.stream(
        seed=config.run.seed, batch_size=config.ppo.num_prompts, epochs=config.train.epochs, first_by=lengths
    )
    reports = {"train": prompts.reports, "eval": held_out.reports}
    demonstrations = None
    if data.ptx:
        encoder = Encoder(tokenizer, data.max_length)
        loaded = load(data, data.ptx, Demonstration, encoder.demonstrations, key="data.ptx")
        run.say(f"ptx: {encode_summary(encoder)}{loaded.notes}")
        order = loaded.stream(seed=config.run.seed, batch_size=config.train.batch_size, epochs=1.0)
        demonstrations, reports["ptx"] = Demonstrations(loaded.items, order), loaded.reports
    schedule, last = schedule_of(config.train, stream.num_steps), run.last_step(stream.num_steps)
    return TrainingData(prompts, held_out, demonstrations, reports, stream, schedule, last)
