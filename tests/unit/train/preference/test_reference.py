"""Log-probabilities of the reference: computed once, read where they are those of this model and these rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.schema import DpoConfig
from rlhf.errors import ArtifactError, CheckpointError
from rlhf.train.preference.reference import reference_logprobs, tree_logprobs
from tests.unit.train.preference.test_step import TenthsOfTokens, ids


class Started:
    """A run on one rank whose manifest names a model."""

    def __init__(self, folder: Path, *, model: str = "a", resumed: object = None, **dpo: Any) -> None:
        folder.mkdir(exist_ok=True)
        manifest = {"parents": {"base": {"path": "base", "sha256": model}}}
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        self.folder, self.resumed, self.lines = RunFolder(folder), resumed, list[str]()
        self.config = DpoConfig.model_validate({"dpo": dpo})

    def say(self, text: str) -> None:
        self.lines.append(text)

    def on_main(self, action: Any) -> Any:
        return action()


TREES = [(ids(4), [ids(6, 20), ids(5)]), (ids(4, 4), [ids(10)])]
GROUPS = {"train": TREES, "eval": [(ids(1), [ids(2), ids(3), ids(4, 5)])]}
EXPECTED = {"train": [(-2.6, -0.5), (-1.0,)], "eval": [(-0.2, -0.3, -0.9)]}


def found_by(run: Started, model: TenthsOfTokens, groups: Any = GROUPS) -> dict[str, list[tuple[float, ...]]]:
    started: Any = run
    return reference_logprobs(started, model, groups)  # type: ignore[arg-type]


def require_expected(found: dict[str, list[tuple[float, ...]]]) -> None:
    assert found.keys() == EXPECTED.keys()
    for name, rows in EXPECTED.items():
        assert found[name] == [pytest.approx(row, rel=1e-6) for row in rows]


@pytest.mark.parametrize("micro_tokens", [4, 100])
def test_every_answer_of_a_tree_has_its_sum(micro_tokens: int) -> None:
    model: Any = TenthsOfTokens()
    assert tree_logprobs(model, TREES, micro_tokens) == [pytest.approx(row, rel=1e-6) for row in EXPECTED["train"]]


def test_they_are_computed_once_and_read_afterwards(tmp_path: Path) -> None:
    first, model = Started(tmp_path / "run"), TenthsOfTokens()
    require_expected(found_by(first, model))
    assert model.rows == 2
    again, untouched = Started(tmp_path / "run", resumed=object()), TenthsOfTokens()
    require_expected(found_by(again, untouched))
    assert untouched.rows == 0
    assert "log-probabilities read from" in again.lines[0]


OTHERS = {
    "another model": ({"model": "b"}, GROUPS),
    "another token": ({}, {**GROUPS, "train": [(ids(4), [ids(6, 21), ids(5)]), TREES[1]]}),
    "another split": ({}, {**GROUPS, "train": [(ids(4, 6), [ids(20), ids(5)]), TREES[1]]}),
    "another order": ({}, {**GROUPS, "train": TREES[::-1]}),
}


@pytest.mark.parametrize(("settings", "groups"), OTHERS.values(), ids=OTHERS)
def test_those_of_others_are_refused_or_replaced(settings: dict[str, Any], groups: Any, tmp_path: Path) -> None:
    """A run that goes on is refused, one that names such a run too, and a new run computes its own."""
    found_by(Started(tmp_path / "run"), TenthsOfTokens())
    with pytest.raises(CheckpointError, match="of another model or other data"):
        found_by(Started(tmp_path / "run", resumed=object(), **settings), TenthsOfTokens(), groups)
    named = Started(tmp_path / "other", reference_from=str(tmp_path / "run"), **settings)
    with pytest.raises(ArtifactError, match=r"dpo\.reference_from: .*has those of another model or other rows"):
        found_by(named, TenthsOfTokens(), groups)
    model = TenthsOfTokens()
    found_by(Started(tmp_path / "run", **settings), model, groups)
    assert model.rows == 2


def test_those_of_a_named_run_are_used(tmp_path: Path) -> None:
    found_by(Started(tmp_path / "first"), TenthsOfTokens())
    second, model = Started(tmp_path / "second", reference_from=str(tmp_path / "first"), beta=0.5), TenthsOfTokens()
    require_expected(found_by(second, model))
    assert model.rows == 0
    assert not (tmp_path / "second" / "reference").exists()


def test_a_named_run_without_any_is_refused(tmp_path: Path) -> None:
    named = Started(tmp_path / "run", reference_from=str(tmp_path / "empty"))
    with pytest.raises(ArtifactError, match=r"dpo\.reference_from: .*empty holds no reference log-probabilities"):
        found_by(named, TenthsOfTokens())


def test_a_file_that_a_crash_cut_short_is_computed_again(tmp_path: Path) -> None:
    found_by(Started(tmp_path / "run"), TenthsOfTokens())
    file = tmp_path / "run" / "reference" / "logprobs.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    require_expected(found_by(Started(tmp_path / "run", resumed=object()), TenthsOfTokens()))
    assert np.frombuffer(file.read_bytes()[-4:], np.float32)[0] == pytest.approx(-1.0)  # whole again
