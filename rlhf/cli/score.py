"""`rlhf score`."""

from __future__ import annotations

from rlhf.cli.parser import OptionFunction, option_command


def _load() -> OptionFunction:
    from rlhf.evaluate.score.command import ScoreOptions, run

    return run, (ScoreOptions,)


COMMAND = option_command(
    "score",
    "scores of a data file's answers by a reward model",
    _load,
    description="Copies the rows of a data file with `rewards`: the score of each answer in reward units, in the order "
    "of the row's answers. The answers to a prompt are scored in one forward pass that reads the prompt once. Scores "
    "are kept in OUT.partial: an interrupted command, started again with the same settings, continues after them.",
    epilog="examples:\n"
    "  rlhf score --model runs/reward --in sampled.jsonl --out scored.jsonl\n"
    "  rlhf score --model runs/reward/model --in demo:rankings_dev --out scored.jsonl",
)
