"""`rlhf data split`."""

from __future__ import annotations

from rlhf.cli.parser import OptionFunction, option_command


def _load() -> OptionFunction:
    from rlhf.curate.split.command import SplitOptions, run

    return run, (SplitOptions,)


COMMAND = option_command(
    "split",
    "divide data into train, dev and test by prompt, the same for all stages",
    _load,
    description="Divides files so that no test prompt, nor a near-duplicate of one, is in any training set. Give the "
    "files of all stages together, or one after the other with the same --out-dir: its assignments.jsonl records "
    "where every prompt went. Writes DIR/<name>_{train,dev,test}.jsonl with manifests.",
    epilog="example: rlhf data split --in sft.jsonl preference.jsonl prompts.jsonl --out-dir data/split",
)
