"""The GPU benchmark's arithmetic by hand, and its table; the keys that benchmarks set are keys of a stage."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rlhf
from rlhf.config.keys import INDEX, key_table
from rlhf.config.stages import STAGES
from rlhf.ops.segments import Segment, Segments
from rlhf.plan.shapes import BUILT_IN, ModelShape, neox

BENCHMARKS = Path(rlhf.__file__).parents[1] / "benchmarks"
SMALL = neox("small", 2, 8, 2, vocabulary=10)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in ("flops", "gpu_table", "gpu_setting", "material", "bench_parts", "bench_rows"):
        sys.modules.pop(name, None)


def test_pairs_of_sequences_and_of_a_tree():
    from flops import attended_pairs

    assert attended_pairs(Segments.of_lengths([3, 1])) == 6 + 1
    # A prompt of 4 (10 pairs), an answer of 2 that sees it (2 * 4 + 3) and one of 3 (3 * 4 + 6).
    tree = Segments((Segment(0, 4), Segment(4, 6, 0, 4), Segment(6, 9, 0, 4)))
    assert attended_pairs(tree) == 10 + 11 + 18


def test_operations_of_a_step():
    """Width 8, two layers: 12 * 64 weights in each, and two products of width 8 per pair; the head has 80 weights."""
    from flops import Work, forward_flops, training_flops

    work = Work.of_rows([(Segments.of_lengths([3]), 2), (Segments.of_lengths([1]), 0)])
    assert work == Work(tokens=4, pairs=7, read=2)
    expected = 2 * 2 * 768 * 4 + 2 * (2 * 2 * 8) * 7 + 2 * 80 * 2
    assert forward_flops(SMALL, work) == expected
    assert training_flops(SMALL, work) == 3 * expected
    one_number = 2 * 2 * 768 * 4 + 2 * (2 * 2 * 8) * 7 + 2 * 8 * 2
    assert forward_flops(SMALL.as_scalar(), work) == one_number


def test_grouped_heads_count_what_they_multiply():
    """Queries of 4 heads of 2 on one key head of 2: a pair costs 2 products of 8 entries all the same."""
    from flops import Work, forward_flops

    shape = ModelShape("grouped", 1, 8, 16, 4, 1, 2, 10, gated=True)
    weights = 8 * 8 + 2 * 8 * 2 + 8 * 8 + 3 * 8 * 16
    assert forward_flops(shape, Work(5, 6, 0)) == 2 * weights * 5 + 4 * 8 * 6


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_peaks(card: str, peak: float | None):
    from flops import peak_flops

    assert peak_flops(card) == peak


def test_the_whole_setting_is_polyglot_ko():
    from gpu_setting import WHOLE

    shape = BUILT_IN["1.3b"]
    assert (WHOLE.layers, WHOLE.hidden, WHOLE.heads, WHOLE.vocabulary) == (
        shape.layers,
        shape.width,
        shape.heads,
        shape.vocabulary,
    )


def test_the_table_shows_what_was_measured_and_says_what_was_not():
    from gpu_table import table

    memory = {"peak_bytes": 2.5 * 2**30, "planned_bytes": 3 * 2**30}
    result = {
        "card": "NVIDIA H100 80GB HBM3",
        "peak_flops_per_s": 989e12,
        "driver": "580.1",
        "versions": {"torch": "2.11.0"},
        "dtype": "bfloat16",
        "sizes": {"layers": 24, "hidden": 2048, "vocabulary": 30080, "steps": 3, "rollout": 64},
        "parts": {
            "sft varlen": {"tokens_per_s": 41234.5, "flops_per_s": 4.0e14, "mfu": 0.4044, **memory},
            "sft sdpa": {"skipped": "no such kernel"},
            "decode": {"slots": {"32": {"step_ms": 12.345, "prefill_ms": 30.0, "tokens_per_s": 2592.0}}},
            "ppo": {"error": "out of memory"},
        },
    }
    lines = table(result).splitlines()
    assert lines[0] == "NVIDIA H100 80GB HBM3 (peak 989 TFLOP/s), driver 580.1; torch 2.11.0."
    assert "| sft varlen | 41,234 | 400 | 0.404 | 2.50 | 3.00 |" in lines
    assert "| 32 | 12.35 | 30.0 | 2,592 |" in lines or "| 32 | 12.34 | 30.0 | 2,592 |" in lines
    assert lines[-2:] == ["- sft sdpa: no such kernel", "- ppo: out of memory"]


def test_benchmarks_set_keys_that_there_are() -> None:
    known = {key for stage in STAGES.values() for key in key_table(stage.config)}
    sections = {key.partition(".")[0] for key in known}
    found = {
        (file.name, key)
        for file in BENCHMARKS.glob("*.py")
        for key in re.findall(r"""["']([a-z]+(?:\.\w+)+)=""", file.read_text(encoding="utf-8"))
        if key.partition(".")[0] in sections
    }
    assert len(found) > 30
    assert not {(name, key) for name, key in found if re.sub(r"\.\d+", f".{INDEX}", key) not in known}


@pytest.mark.parametrize("stage", ["reward", "ppo"])
def test_a_comparison_learns_as_the_other_side_does_and_not_as_the_demo(stage):
    """What the demo's recipe tunes beside sizes, rates and budgets, which every benchmark sets itself."""
    from material import NOT_THE_DEMOS

    from rlhf.config.load import load_config

    words = [f"{key}.path=m" for key in (("actor", "reward") if stage == "ppo" else ("model",))]
    tuned = load_config(STAGES[stage].config, f"recipe:demo/{stage}", [*words, *NOT_THE_DEMOS[stage]])
    plain = STAGES[stage].config()
    assert tuned.train.lr_groups == []
    if stage == "ppo":
        assert (tuned.ppo.gamma, tuned.ppo.lam, tuned.ppo.clip) == (1.0, 0.95, plain.ppo.clip)
        assert tuned.sampling.temperature == 1.0


def test_every_comparison_with_another_framework_leaves_the_demos_tuning_out():
    scripts = ("ppo", "ppo_learning", "ppo_material", "reward", "rollout", "peers")
    missing = [name for name in scripts if "*NOT_THE_DEMOS[" not in (BENCHMARKS / f"{name}.py").read_text("utf-8")]
    assert missing == []


def test_the_row_of_reuse_is_of_a_part_that_the_driver_runs():
    from bench_parts import PARTS
    from bench_rows import MEASURES

    words = next(part.words for part in PARTS if part.name == "ppo")
    row = next(each for each in MEASURES if each.key == "ppo_reuse_ratio")
    round_ = {"reuse": {"iterations_per_s": 3.0}, "anew": {"iterations_per_s": 2.0}}
    assert row.read({f"rounds_{name}": [round_] for name in words}).value == 1.5
