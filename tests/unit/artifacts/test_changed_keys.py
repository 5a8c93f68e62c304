"""Keys of a configuration that are not at their default."""

from __future__ import annotations

from rlhf.artifacts.changed_keys import NO_SUCH_KEY, changed_keys, shown


def test_only_what_is_not_at_its_default_is_listed() -> None:
    """train.epochs is 1 by default and model.lora null: a section in the place of null is one value."""
    config = {"train": {"lr": 0.5, "epochs": 1}, "model": {"lora": {"rank": 2}}, "train.typo": 3}
    found = {key: (value, default) for key, value, default in changed_keys(config, "sft")}
    assert found.keys() == {"train.lr", "model.lora", "train.typo"}
    assert found["train.lr"][0] == 0.5
    assert found["model.lora"] == ({"rank": 2}, None)
    assert found["train.typo"] == (3, NO_SUCH_KEY)


def test_a_value_is_shown_in_few_characters() -> None:
    assert shown([{"path": "a.jsonl", "weight": 1}, {"path": "b.jsonl"}]) == "a.jsonl, b.jsonl"
    assert (shown("nf4"), shown(None), shown([1, "가"])) == ("nf4", "null", '[1, "가"]')
