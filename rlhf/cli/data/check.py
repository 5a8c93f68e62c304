"""`rlhf data check`: whether a file can be trained on, what is wrong with it, and what it would cost."""

from __future__ import annotations

from rlhf.cli.parser import OptionFunction, option_command


def _load() -> OptionFunction:
    from rlhf.curate.check.command import CheckOptions, run

    return run, (CheckOptions,)


COMMAND = option_command(
    "check",
    "what a file is, which stages can use it, what is wrong with it, and the cost",
    _load,
    epilog="examples:\n"
    "  rlhf data check train.jsonl\n"
    "  rlhf data check train.jsonl --stage sft --tokenizer runs/sft/model --max-length 1024\n"
    "  rlhf data check dev.jsonl --against train.jsonl\n"
    "  rlhf data check train.jsonl --stage sft --epochs 3 --price 0.03/1k --tokens-per-second 9000 --gpus 4\n\n"
    "exit status: 0 usable, 1 not usable as it is, 2 not readable as rows (or a wrong flag)",
)
