"""Runs beside one another: what differs, what is drawn, and what cannot be compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.errors import ArtifactError
from rlhf.runs.comparison import comparison_table, labels, read_runs, render_comparison, setting_differences
from rlhf.runs.plots import Curve, curves_plot
from tests.support.run_folders import write_run

SETTINGS = {"settings": {"world_size": 1}, "packages": {"torch": "2.13.0", "peft": "1"}}
DATA = {"role": "train", "name": "talks"}


def metrics(*losses: float) -> list[dict[str, Any]]:
    first = {"step": 1, "loss": losses[0], "eval/loss_before": 9.0}
    return [first, *({"step": step, "loss": loss} for step, loss in enumerate(losses[1:], 2))]


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    first = write_run(
        tmp_path / "a<1>", "sft", "train.lr=1e-3", metrics=metrics(3, 2), data=[DATA | {"sha256": "a" * 64}], **SETTINGS
    )
    more = ("train.lr=3e-3", "model.lora.rank=4")
    second = write_run(
        tmp_path / "b", "sft", *more, metrics=metrics(3, 1), data=[DATA | {"sha256": "b" * 64}], **SETTINGS
    )
    return [first, second]


def test_only_what_differs_is_listed(pair: list[Path]) -> None:
    found = setting_differences(read_runs(pair))
    assert found["train.lr"] == ["0.001", "0.003"]
    assert found["model.lora"] == ["null", "-"]
    assert found["model.lora.rank"] == ["-", "4"]
    assert found["(data train: talks)"] == ["a" * 12, "b" * 12]
    # the folder's name, equal keys, ranks and packages are not
    assert not {"run.dir", "train.epochs", "(ranks)", "(torch)"} & found.keys()
    assert all(key.startswith("model.lora") for key in found.keys() - {"train.lr", "(data train: talks)"})


def test_equal_runs_differ_in_nothing(tmp_path: Path) -> None:
    records = read_runs([write_run(tmp_path / name, metrics=metrics(2, 1)) for name in "ab"])
    assert setting_differences(records) == {}
    assert "No setting differs." in render_comparison(records)


def test_a_label_is_as_long_as_it_must_be(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in ("x/lr=1", "x/lr=2", "y/lr=1")]
    assert labels(read_runs(runs[:2])) == ["lr=1", "lr=2"]
    assert labels(read_runs(runs)) == ["x/lr=1", "x/lr=2", "y/lr=1"]


def test_the_table_has_a_line_a_run(pair: list[Path]) -> None:
    head, first, second, *_ = comparison_table(read_runs(pair)).splitlines()
    assert "train.lr" in head.split()
    assert ("0.001" in first, "0.003" in second) == (True, True)
    assert re.match(r"a<1> +finished +2 +loss 2 +2 ", first)
    assert re.match(r"b +finished +2 +loss 1 +2 ", second)


def test_the_page_draws_each_metric_once_with_a_line_a_run(pair: list[Path]) -> None:
    page = render_comparison(read_runs(pair))
    assert page.count("<svg") == 1  # the loss; what was measured once is no curve
    assert "Loss: loss" in page
    assert "a&lt;1&gt;" in page
    assert "<1>" not in page
    drawn = page[page.index("<svg") : page.index("</svg>")]
    assert {"#2f5d8c", "#c98a1b"} <= set(re.findall(r"stroke: (#\w+)", drawn))
    assert not re.search(r'(src|href)="http', page)


def test_the_seventh_run_is_dashed(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{number}", metrics=metrics(2, 1)) for number in range(7)]
    page = render_comparison(read_runs(runs))
    marks = re.findall(r"border-top:3px (\w+) (#\w+)", page)[:7]
    assert len(set(marks)) == 7
    assert marks[0] == ("solid", "#2f5d8c")
    assert marks[6] == ("dashed", "#2f5d8c")


def test_files_are_skipped_and_what_is_no_run_is_refused(pair: list[Path], tmp_path: Path) -> None:
    note = tmp_path / "compare.html"
    note.touch()
    assert [record.path for record in read_runs([*pair, note, pair[0]])] == pair
    (tmp_path / "base").mkdir()
    for wrong, match in ((tmp_path / "base", "holds no run"), (tmp_path / "gone", "does not exist")):
        with pytest.raises(ArtifactError, match=match):
            read_runs([*pair, wrong])
    with pytest.raises(ArtifactError, match="1 of 1 runs have begun"):
        read_runs(pair[:1])
    reward = write_run(tmp_path / "reward", "reward")
    with pytest.raises(ArtifactError, match=r"different stages: .*b is sft; .*reward is reward"):
        read_runs([pair[1], reward])


def test_the_command_writes_one_page(pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "pages" / "both.html"
    assert main(["compare", *map(str, pair), "--out", str(page)]) == 0
    assert capsys.readouterr().out.endswith(f"{page}\n")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("steps", [[1.0], [1.0, 2.0], [3.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
def test_the_axis_of_steps_has_whole_numbers(steps: list[float]) -> None:
    drawn = curves_plot([Curve((steps, [0.5] * len(steps)), "#2f5d8c")])
    across = drawn[drawn.index('id="matplotlib.axis_1"') : drawn.index('id="matplotlib.axis_2"')]
    shown = re.findall(r">([-\d.]+)</text>", across)
    assert shown
    assert all(text.isdigit() for text in shown)
