"""`rlhf data stats`: statistics of data files, as text or as a page."""

from __future__ import annotations

from rlhf.cli.parser import OptionFunction, option_command


def _load() -> OptionFunction:
    from rlhf.curate.stats.command import StatsOptions, run

    return run, (StatsOptions,)


COMMAND = option_command(
    "stats",
    "lengths, sources, politeness, topics, labels and scores, as text or as a page",
    _load,
    epilog="examples:\n"
    "  rlhf data stats train.jsonl\n"
    "  rlhf data stats train.jsonl dev.jsonl --html stats.html --tokenizer runs/sft/model",
)
