"""Text of the repository: composed Hangul everywhere, and embedded rankings that mean what they should."""

from __future__ import annotations

import json
import subprocess
import tomllib
import unicodedata
from pathlib import Path

import pytest

import rlhf
from rlhf.curate.rude import contains_rude
from rlhf.data.korean import polite_share
from rlhf.errors import ConfigError, require_packages

ROOT = Path(rlhf.__file__).parents[1]
DATA = Path(rlhf.__file__).parent / "demo" / "data"


def tracked() -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def not_composed(content: bytes) -> str | None:
    """The first line that is not NFC; None for a composed text or a file that is no text."""
    if b"\0" in content:
        return None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return next((line for line in text.splitlines() if not unicodedata.is_normalized("NFC", line)), None)


def test_every_text_file_and_its_name_is_nfc():
    files = tracked()
    assert len(files) > 80
    wrong = [str(path) for path in files if not unicodedata.is_normalized("NFC", path.name)]
    wrong += [f"{path.relative_to(ROOT)}: {line}" for path in files if (line := not_composed(path.read_bytes()))]
    assert wrong == []


def test_decomposed_text_is_found():
    decomposed = unicodedata.normalize("NFD", "한국어")
    assert not_composed(f"첫 줄\n{decomposed}\n".encode()) == decomposed
    assert not_composed("한국어\n".encode()) is None
    assert not_composed(b"\x00" + decomposed.encode()) is None


def test_no_text_installs_the_other_project_of_this_name():
    """`rlhf` on PyPI is another project: extras are named as `.[serve]` in the checkout."""
    wrong = [path.relative_to(ROOT) for path in tracked() if b"rlhf" + b"[" in path.read_bytes()]
    assert wrong == []
    name = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    assert name != "rlhf"


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    require_packages("json", "unicodedata", extra="serve", needed_by="the service")
    with pytest.raises(ConfigError) as caught:
        require_packages("json", "no_such_one", "nor_this", extra="serve", needed_by="the service", where="--host")
    assert str(caught.value) == (
        "--host: the service needs no-such-one, nor-this, which are not installed\n"
        "  fix:      pip install -e '.[serve]' in the checkout"
    )


# The hand-written rankings


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


TRAIN, DEV = rows("handwritten_train"), rows("handwritten_dev")


def test_there_is_enough():
    assert len(TRAIN) + len(DEV) >= 240
    assert len(DEV) >= 40
    assert len({row["topic"] for row in TRAIN}) >= 20
    assert {row["topic"] for row in DEV} <= {row["topic"] for row in TRAIN}


def test_every_row_has_four_different_answers_in_rank_order():
    for row in TRAIN + DEV:
        assert row["ranks"] == [1, 2, 3, 4], row
        assert len({answer.strip() for answer in row["responses"]}) == 4, row
        assert all(text == text.strip() and text for text in (row["prompt"], *row["responses"])), row


def test_no_prompt_is_in_both_files_or_twice():
    prompts = ["".join(row["prompt"].split()) for row in TRAIN + DEV]
    assert len(prompts) == len(set(prompts))


def test_no_answer_is_in_both_files():
    train = {answer for row in TRAIN for answer in row["responses"][:2]}
    assert not [answer for row in DEV for answer in row["responses"][:2] if answer in train]


def test_registers_are_as_intended():
    """Ranks 1 and 2 polite, 3 plain but civil, 4 plain and unkind."""
    for row in TRAIN + DEV:
        warm, dry, plain, unkind = row["responses"]
        assert polite_share(warm) == polite_share(dry) == 1.0, row
        assert polite_share(plain) < 1 > polite_share(unkind), row
        assert not any(map(contains_rude, (warm, dry, plain))), row


def test_the_worst_answers_are_mostly_recognised_as_rude():
    worst = [row["responses"][3] for row in TRAIN + DEV]
    assert sum(map(contains_rude, worst)) / len(worst) > 0.5


def test_length_alone_does_not_give_the_rank_away():
    """'The longer answer wins' must not be a perfect rule of the data."""
    pairs = [
        (row["responses"][a], row["responses"][b]) for row in TRAIN + DEV for a in range(4) for b in range(a + 1, 4)
    ]
    longer = sum(len(better) > len(worse) for better, worse in pairs) / len(pairs)
    assert longer < 0.85


def test_nothing_reads_like_a_control_token():
    for row in TRAIN + DEV:
        assert not any("<|" in text or "###" in text for text in (row["prompt"], *row["responses"])), row
