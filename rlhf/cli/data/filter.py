"""`rlhf data filter`."""

from __future__ import annotations

from rlhf.cli.parser import OptionFunction, option_command


def _load() -> OptionFunction:
    from rlhf.curate.filter.command import FilterOptions, run

    return run, (FilterOptions,)


COMMAND = option_command(
    "filter",
    "drop rows: short, long, repeated, foreign, rude, personal, boilerplate",
    _load,
    description="Copies the rows of a data file that pass every filter named. Filters run in the order below, and a "
    "row is counted under the first that drops it. OUT.manifest.json holds the counts with examples. The prompt of a "
    "row is everything before the answer, without the system turn.",
    epilog="example: rlhf data filter --in prompts.jsonl --out kept.jsonl --min-chars 16 --dedup cosine:0.5\n"
    "the filter of 2023, row for row: --min-chars 16 --dedup cosine:0.5 --vectorizer vaiv",
)
