"""Names of metrics: the registry is whole, and every name that the code writes or reads is in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rlhf
from rlhf.config.metric_names import metric_of, metrics
from rlhf.config.stages import STAGES
from rlhf.runs.plots import WIRE_METRICS, panels

ROOT = Path(rlhf.__file__).parents[1]
OF_TABLES = ROOT / "tests" / "unit" / "evaluate" / "geval" / "test_table.py"
PLAIN = ["step", "loss", "lr", "grad_norm", "tokens"]
NAMES = [each.name for each in metrics()]
GROUPS = {name.split("/")[0] for name in NAMES if "/" in name}
GROUPED = re.compile(rf"({'|'.join(sorted(GROUPS))})/[\w/]+")


def literals(source: str) -> Iterator[str]:
    """Strings of a source; a field of an f-string is an `x`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
            yield "".join(map(str, parts))


def test_names_are_grouped_and_each_is_there_once():
    assert len(set(NAMES)) == len(NAMES) > 50
    assert [name for name in NAMES if "/" not in name] == PLAIN
    for name in NAMES:
        assert re.fullmatch(r"[a-z0-9_]+(/(NAME|[a-z0-9_]+))*", name)


@pytest.mark.parametrize("metric", metrics(), ids=lambda each: each.name)
def test_an_entry_is_whole(metric):
    assert metric.stages == tuple(stage for stage in STAGES if stage in metric.stages) != ()
    assert metric.unit.keys() == metric.meaning.keys() == {"en", "ko"}
    for texts in (metric.healthy, metric.when):
        assert texts.keys() in (set(), {"en", "ko"})
    for texts in (metric.unit, metric.meaning, metric.healthy, metric.when):
        assert all(text and "|" not in text and "\n" not in text for text in texts.values())
    for texts in (metric.meaning, metric.healthy, metric.when):
        assert texts.get("en", "").isascii()
    assert any("가" <= letter <= "힣" for letter in metric.meaning["ko"]) or metric.meaning["ko"].startswith("1 -")
    by_clock = "second" in metric.unit["en"]
    assert by_clock == metric.name.endswith("_s")  # tests and readers tell clock figures by their names


@pytest.mark.parametrize(
    ("logged", "name"),
    [
        ("loss", "loss"),
        ("objective/kl", "objective/kl"),
        ("loss_by_source/대화", "loss_by_source/NAME"),
        ("eval/loss_by_source/a/b", "eval/loss_by_source/NAME"),
        ("prompts/qa/kl", "prompts/NAME/kl"),
    ],
)
def test_a_logged_name_is_found(logged, name):
    metric = metric_of(logged)
    assert metric is not None
    assert metric.name == name
    assert metric.is_family == ("NAME" in name)


@pytest.mark.parametrize("logged", ["kl", "objective/", "loss/chat", "reward_by_source/", "prompts/qa", "eval/loss2"])
def test_another_name_is_not_found(logged):
    assert metric_of(logged) is None


def test_every_name_in_the_code_is_in_the_registry():
    """Also in benchmarks, which read metrics.jsonl; TRL's own names aside, and columns of an evaluation's table."""
    found = {}
    for folder in ("rlhf", "benchmarks", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name.startswith("trl_") or path in (Path(__file__).resolve(), OF_TABLES):
                continue
            for text in literals(path.read_text(encoding="utf-8")):
                if GROUPED.fullmatch(text):
                    found.setdefault(text, str(path.relative_to(ROOT)))
    assert len(found) > 50
    assert {name: where for name, where in found.items() if metric_of(name) is None} == {}


def test_every_alternative_of_a_panel_and_of_a_wire_is_a_metric():
    for pattern in [*(panel.metrics for panel in panels()), *WIRE_METRICS.values()]:
        matched = [name for name in NAMES if re.fullmatch(pattern, name)]
        assert len(matched) >= pattern.count("|") + 1, pattern
