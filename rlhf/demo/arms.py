"""`rlhf quickstart --arms`: the quickstart's SFT model as the start of several arms."""

from __future__ import annotations

from rlhf.demo.options import QuickstartOptions
from rlhf.demo.processes import demo_ranks
from rlhf.demo.topic import topic_of
from rlhf.errors import ConfigError
from rlhf.runs.arms.command import ArmsComparison


def quickstart_arms(options: QuickstartOptions) -> ArmsComparison:
    """The comparison of the demo's arms in OUT/arms.

    Raises: ConfigError with data of one's own, for which the recipe's settings are not made.
    """
    if options.data is not None:
        raise ConfigError(
            "the arms of the quickstart are those of the embedded data",
            where="--arms --data",
            fix="write a configuration like recipe:demo/arms, and start it with rlhf arms",
        )
    words = [f"sft={options.out / 'sft' / 'model'}", f"seed={options.seed}"]
    words += [f"max_steps={options.max_steps}"] if options.max_steps else []
    ranks = demo_ranks()
    words += [f"ranks={ranks}"] if ranks else []
    return ArmsComparison("recipe:demo/arms", options.out / "arms", words, topic_of=topic_of)
