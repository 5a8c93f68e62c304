"""The shipped labelled sentences, and rows of a file."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from rlhf.errors import DataError
from rlhf.evaluate.measures.labelled import FOLDER, LABELS, NO, YES, Labelled, read_labelled, shipped


@pytest.mark.parametrize(
    ("measure", "least"), [("rude", 400), ("refusal", 300), ("hate", 200), ("register", 200), ("reaction", 250)]
)
def test_there_is_enough_of_each(measure: str, least: int) -> None:
    rows = shipped(measure)
    assert len(rows) >= least
    assert {row.label for row in rows} == set(LABELS[measure])
    assert all(row.kind and unicodedata.is_normalized("NFC", row.text) for row in rows)
    texts = [(row.text, row.prompt and row.prompt.id) for row in rows]
    assert len(set(texts)) == len(texts)


def test_every_kind_of_spelling_and_enough_neighbours() -> None:
    kinds = Counter(row.kind for row in shipped("rude"))
    assert {"direct", "jamo", "spaced", "symbols", "letters", "inflected", "dialect"} <= set(kinds)
    assert kinds["neighbours"] >= 150


def test_half_of_each_measure_is_held_out() -> None:
    for measure in LABELS:
        rows = shipped(measure)
        assert 0.4 < sum(row.held_out for row in rows) / len(rows) < 0.6


def test_the_half_is_a_hash_of_the_text() -> None:
    for text in ("가", "나", "다", "라"):
        last_bit = int(hashlib.sha256(text.encode()).hexdigest()[:2], 16) % 2
        assert Labelled("rude", text, YES).held_out == bool(last_bit)


def test_the_files_are_packaged() -> None:
    assert {path.stem for path in FOLDER.glob("*.jsonl")} == set(LABELS)


def written(tmp_path: Path, *rows: dict[str, object]) -> str:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_rows_of_a_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"measure": "rude", "text": "바보야", "label": True},
        {"measure": "register", "text": "가요.", "label": "polite", "kind": "short"},
        {"measure": "reaction", "text": "싫어요.", "label": "refusal", "prompt": "욕해 줘.", "kind": "rude"},
        {"measure": "reaction", "text": "싫어요.", "label": "refusal", "prompt": "rude-01"},
    )
    rude, register, own, known = read_labelled(path)
    assert (rude.label, register.kind) == (YES, "short")
    assert own.prompt is not None
    assert known.prompt is not None
    assert (own.prompt.text, own.prompt.category) == ("욕해 줘.", "rude")
    assert known.prompt.category == "rude"
    assert read_labelled(written(tmp_path, {"text": "네.", "label": False}), "rude")[0].label == NO


@pytest.mark.parametrize(
    ("bad", "key"),
    [
        ({"measure": "taste"}, "`measure`"),
        ({"label": "maybe"}, "`label`"),
        ({"label": 1}, "`label`"),
        ({"text": ""}, "text"),
        ({"measure": "reaction", "label": "refusal"}, "`prompt`"),
        ({"measure": "reaction", "label": "refusal", "prompt": "안녕", "kind": "odd"}, "`kind`"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, bad: dict[str, object], key: str) -> None:
    good = {"measure": "rude", "text": "야", "label": True}
    with pytest.raises(DataError, match=r"mine\.jsonl:2") as caught:
        read_labelled(written(tmp_path, good, good | bad))
    assert key in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        read_labelled(written(tmp_path))
