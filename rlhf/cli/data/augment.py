"""`rlhf data augment`."""

from __future__ import annotations

from rlhf.cli.parser import OptionFunction, option_command


def _load() -> OptionFunction:
    from rlhf.curate.augment.command import run
    from rlhf.curate.augment.options import AugmentOptions
    from rlhf.curate.endpoint.options import EndpointOptions

    return run, (AugmentOptions, EndpointOptions)


COMMAND = option_command(
    "augment",
    "new instructions with answers, written by a language model from seeds",
    _load,
    description="Writes Korean instructions with answers from seed instructions: by Self-Instruct, or by making the "
    "seeds harder step by step (Evol-Instruct). Stopped, killed or over its budget, the same command again continues "
    "where it was and pays only for the rest.",
    epilog="example:\n"
    "  rlhf data augment --method self-instruct --seeds prompts.jsonl --endpoint http://127.0.0.1:8000/v1 \\\n"
    "      --model my-model --num 500 --out new.jsonl\n"
    "then: rlhf data check --stage sft new.jsonl",
)
