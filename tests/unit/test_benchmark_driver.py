"""`make bench`: rows and tables by hand, parts that end well, fail, are kept or find no time; fits and profiles."""

from __future__ import annotations

import datetime
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import linregress, t

import rlhf

BENCHMARKS = Path(rlhf.__file__).parents[1] / "benchmarks"
QUIET, BUSY = {"load": 0.5, "product_s": 0.2}, {"load": 2.5, "product_s": 0.3}
WORKING = """
import json, sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
runs = Path(__file__).with_suffix(".runs")
runs.write_text(runs.read_text() + "x" if runs.is_file() else "x")
out.write_text(json.dumps({"words": sys.argv[1:], "rounds": []}))
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in {file.stem for file in BENCHMARKS.glob("*.py")}:
        sys.modules.pop(name, None)


# The machine


def test_states_are_found_wherever_they_are_and_summed_up():
    from machine import states_in, summary

    side = {"tokens_per_s": 3.0, "machine": {"before": QUIET, "after": BUSY}}
    result = {"rounds": [{"ours": side, "theirs": side}], "machine": {"before": QUIET, "after": QUIET}}
    found = states_in(result)
    assert found == [QUIET, QUIET, QUIET, BUSY, QUIET, BUSY]
    assert summary(found) == pytest.approx(
        {"load_mean": 7 / 6, "load_max": 2.5, "product_s": 0.2, "drift": 0.5}, rel=1e-12
    )
    assert summary([]) == {}


def test_a_side_is_measured_between_two_states():
    from machine import watched

    found = watched(lambda: {"tokens_per_s": 7.0})
    assert found["tokens_per_s"] == 7.0
    assert set(found["machine"]) == {"before", "after"}
    assert found["machine"]["after"]["product_s"] > 0


# Rows


def rounds(**speeds: list[float]) -> list[dict[str, Any]]:
    """Rounds with the speed of each side."""
    count = len(next(iter(speeds.values())))
    return [{side: {"speed": values[number]} for side, values in speeds.items()} for number in range(count)]


def test_ours_is_compared_with_the_fastest_side_round_by_round():
    """Medians 4 and 5, so the grouped side; ratios 2, 3 and 1.5."""
    from bench_rows import versus

    kept = rounds(ours=[10, 12, 9], trl_padded=[4, 9, 1], trl_grouped=[5, 4, 6])
    found = versus("speed", "trl_padded", "trl_grouped", "trl_packed")({"rounds": kept})
    assert (found.value, found.low, found.high, found.side, found.rounds) == (2.0, 1.5, 3.0, "trl_grouped", 3)
    with pytest.raises(KeyError):
        versus("speed", "trl_packed")({"rounds": kept})


def measure(**changed: Any) -> Any:
    from bench_rows import Measure, versus

    words = {
        "key": "sft_tokens_ratio",
        "part": "sft",
        "work": {"en": "stage 1", "ko": "1단계"},
        "against": {"en": "TRL {trl}, {side}", "ko": "TRL {trl} ({side})"},
        "read": versus("speed", "trl_packed"),
    }
    return Measure(**{**words, **changed})


def test_a_row_has_its_figure_the_state_and_the_version():
    from bench_rows import row

    result = {"rounds": rounds(ours=[6.0], trl_packed=[3.0])}
    found = {"sft": {"seconds": 1.0, "machine": {"before": QUIET, "after": BUSY}, "result": result}}
    made = row(measure(), found, {"sft": {"trl": "1.16.0"}})
    assert (made["value"], made["range"], made["rounds"]) == (2.0, [2.0, 2.0], 1)
    assert made["against"] == {"en": "TRL 1.16.0, packed", "ko": "TRL 1.16.0 (packed)"}
    assert made["machine"]["drift"] == pytest.approx(0.5)


def test_a_row_without_a_figure_says_why():
    from bench_rows import row, value

    assert row(measure(), {}, {})["missing"] == "not asked for"
    assert row(measure(), {"sft": {"error": "no end after 3 minutes"}}, {})["missing"] == "no end after 3 minutes"
    nothing = {"sft": {"seconds": 1.0, "result": {"rounds": []}}}
    assert row(measure(), nothing, {})["missing"] == "not in the result of benchmarks/sft.py"
    said = {"ppo_lf": "ImportError: no PPO", "sft_lf": "no end after 300 s"}
    refused = {"peers": {"seconds": 1.0, "result": {"missing": said, "impossible": ["ppo_lf"]}}}
    made = row(measure(key="ppo_lf", part="peers", read=value("ppo_lf")), refused, {})
    assert (made["missing"], made["impossible"]) == ("ImportError: no PPO", True)
    slow = row(measure(key="sft_lf", part="peers", read=value("sft_lf")), refused, {})
    assert (slow["missing"], slow["impossible"]) == ("no end after 300 s", False)
    assert made["against"]["ko"] == "TRL"


def test_every_measure_is_of_a_part_in_both_languages():
    from bench_parts import PARTS
    from bench_rows import MEASURES

    keys = [each.key for each in MEASURES]
    assert len(set(keys)) == len(keys)
    assert {each.part for each in MEASURES} <= {part.name for part in PARTS}
    assert all(set(each.work) == set(each.against) == {"en", "ko"} for each in MEASURES)
    assert {"sft_lf", "sft_swift", "reward_lf", "reward_swift", "ppo_swift", "ppo_reuse_ratio"} <= set(keys)
    assert all((part.folder / f"{part.name}.py").is_file() for part in PARTS)


# Parts


def scripts(folder: Path, **texts: str) -> list[Any]:
    from bench_parts import Part

    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return [Part(name, 1.0, ("--whole",), ("--short",), folder=folder) for name in texts]


def test_parts_run_once_and_failures_are_told(tmp_path: Path):
    import all as driver

    parts = scripts(tmp_path, works=WORKING, fails="raise ValueError('no such rows')")
    data, work = tmp_path / "rows", tmp_path / "work"
    work.mkdir()
    data.mkdir()
    (data / "sft_train.jsonl").write_text("{}\n")
    found = driver.run_parts(parts, driver.Setting(data), work, 60)
    assert found["works"]["result"]["words"][:2] == ["--data", str(data)]
    assert found["works"]["result"]["words"][-1] == "--whole"
    assert found["fails"]["error"] == "status 1: ValueError: no such rows"
    assert "before" in found["works"]["machine"]
    again = driver.run_parts(parts, driver.Setting(data), work, 60)
    assert again["works"] == found["works"]
    assert (tmp_path / "works.runs").read_text() == "x"  # kept, not run again
    assert [file.name for file in work.glob("*.part*")] == []


def test_a_part_that_does_not_fit_is_named(tmp_path: Path):
    import all as driver

    (part,) = scripts(tmp_path, works=WORKING)
    found = driver.run_parts([part], driver.Setting(tmp_path / "rows"), tmp_path, 0.5)
    assert found["works"]["error"].startswith("no time was left: takes 1 minutes")
    quick = driver.run_parts([part], driver.Setting(tmp_path / "rows", quick=True), tmp_path, 0.5)
    assert quick["works"]["result"]["words"][-1] == "--short"


def test_a_part_that_does_not_end_is_ended_with_all_it_started(tmp_path: Path):
    import all as driver

    child = tmp_path / "child"
    text = (
        "import subprocess, sys, time\nfrom pathlib import Path\n"
        f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"Path({str(child)!r}).write_text(str(p.pid))\ntime.sleep(600)\n"
    )
    script = tmp_path / "sleeps.py"
    script.write_text(text)
    assert driver.ended([sys.executable, str(script)], tmp_path / "log", 3.0) is None
    deadline = time.monotonic() + 60
    while alive(int(child.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)  # it is killed, and leaves when the system comes to it
    assert not alive(int(child.read_text()))


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("other", ["words", "rows", "code", "none"])
def test_a_result_of_other_words_rows_or_code_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
):
    import all as driver

    parts, rows = scripts(tmp_path, works=WORKING), tmp_path / "rows"
    work = tmp_path / "work"
    work.mkdir()
    rows.mkdir()
    driver.run_parts(parts, driver.Setting(rows), work, 60)
    if other == "rows":
        (rows / "sft_train.jsonl").write_text("{}\n")
    driver.rows_hash.cache_clear()
    if other == "code":
        monkeypatch.setattr(driver, "code_hash", lambda: "another")
    found = driver.run_parts(parts, driver.Setting(rows, quick=other == "words"), work, 60)
    assert (tmp_path / "works.runs").read_text() == ("x" if other == "none" else "xx")
    assert found["works"]["measured"] == datetime.date.today().isoformat()


def test_the_hash_of_code_leaves_out_what_makes_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import stamps

    monkeypatch.setattr(stamps, "ROOT", tmp_path)
    hashes = []
    for name, text in (("rlhf/ppo.py", "1"), ("benchmarks/all.py", "1"), ("rlhf/ppo.py", "2"), ("scripts/new.py", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        stamps.code_hash.cache_clear()
        hashes.append(stamps.code_hash())
    stamps.code_hash.cache_clear()
    assert hashes[0] == hashes[1]
    assert len(set(hashes[1:])) == 3


def test_the_hash_of_rows_is_of_the_rows_alone(tmp_path: Path):
    from stamps import rows_hash

    hashes = []
    for name, text in (("ranking_dev.jsonl", "{}"), ("notes.txt", "1"), ("ranking_dev.jsonl", "{ }")):
        (tmp_path / name).write_text(text)
        rows_hash.cache_clear()
        hashes.append(rows_hash(tmp_path))
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_trial_leaves_whole_results_alone(tmp_path: Path):
    import all as driver

    parts = scripts(tmp_path, works=WORKING)
    whole = driver.run_parts(parts, driver.Setting(tmp_path / "rows"), tmp_path, 60)
    driver.run_parts(parts, driver.Setting(tmp_path / "rows", quick=True), tmp_path, 60)
    assert driver.run_parts(parts, driver.Setting(tmp_path / "rows"), tmp_path, 60) == whole
    assert (tmp_path / "works.runs").read_text() == "xx"


def test_the_table_shows_figures_reasons_and_the_machine(tmp_path: Path):
    from all import content
    from bench_table import table

    result = {"rounds": [{"ours": {"rows_per_s": 6.0}, "trl_padded": {"rows_per_s": 3.0}}]}
    found = {
        "reward": {
            "measured": "2026-05-02",
            "seconds": 90.0,
            "machine": {"before": QUIET, "after": BUSY},
            "result": result,
        },
        "gpu": {"error": "no CUDA device"},
    }
    lines = table(content(found, quick=False, embedded=False)).splitlines()
    assert lines[0].endswith("took from 0.20 s to 50% more.")
    assert (
        "| stage 2, pairs/s | TRL `RewardTrainer`, padded, its best mode | 2.00 (2.00 to 2.00) | 1.5 | 50% |" in lines
    )
    assert "| reward | 1.5 | 1.5 | 50% |" in lines
    assert "- stage 1, real tokens/s (sft_tokens_ratio): not asked for" in lines


def test_rows_that_ship_make_every_file(tmp_path: Path):
    from embedded_rows import write_rows

    write_rows(tmp_path)

    def read(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]

    lengths = [len(row["messages"][1]["content"]) for row in read("sft_train")]
    assert len(lengths) > 1000
    assert max(lengths) > 5 * min(lengths)
    assert all(len(set(row["responses"])) == len(row["ranks"]) == 6 for row in read("ranking_train"))
    assert all(len(set(row["responses"])) == 2 for row in read("preference_dev"))
    assert len(read("prompts_train")) > 1000


# Fits and profiles


def test_a_power_is_found_exactly():
    from scaling_fit import power_fit

    fit = power_fit([1, 2, 4, 8], [3, 12, 48, 192])
    assert (fit.exponent, fit.scale, fit.worst) == pytest.approx((2, 3, 0), abs=1e-12)
    assert (fit.low, fit.high) == pytest.approx((2, 2), abs=1e-12)
    assert fit.at(16) == pytest.approx(768)


def test_the_interval_is_that_of_a_straight_line_on_logarithms():
    from scaling_fit import power_fit

    x, y = [1.0, 3.0, 10.0, 20.0, 50.0], [2.0, 5.0, 11.0, 30.0, 41.0]
    fit, line = power_fit(x, y), linregress(np.log(x), np.log(y))
    half = t.ppf(0.975, 3) * line.stderr
    assert fit.exponent == pytest.approx(line.slope)
    assert (fit.low, fit.high) == pytest.approx((line.slope - half, line.slope + half))
    fitted = np.exp(line.intercept) * np.asarray(x) ** line.slope
    assert fit.worst == pytest.approx(np.abs(np.asarray(y) / fitted - 1).max())


def test_two_points_have_no_interval_and_one_no_fit():
    from scaling_fit import power_fit

    fit = power_fit([1, 2], [5, 10])
    assert (fit.exponent, fit.low, fit.high) == (pytest.approx(1), None, None)
    with pytest.raises(ValueError, match="1 different"):
        power_fit([2, 2], [1, 3])
    with pytest.raises(ValueError, match="no logarithm"):
        power_fit([1, 2], [0, 3])


def test_what_large_models_take_follows_the_measured_power():
    """From 1.3B to 5.8B on 8 cards, with a power of 1: the ratio of their parameters, over 8."""
    from scaling_outlook import outlook

    from rlhf.plan.shapes import BUILT_IN

    rows = outlook({"parameters": {"fits": {"time_s": {"exponent": 1.0}}}})
    assert len(rows) == 3 * 3 * 3
    by = {(row["stage"], row["size"], row["cards"]): row for row in rows}
    anchor, larger = by["sft", "1.3b", 1], by["sft", "5.8b", 8]
    ratio = BUILT_IN["5.8b"].parameters / BUILT_IN["1.3b"].parameters
    assert larger["scaled_hours"] == pytest.approx(anchor["planned_hours"] * ratio / 8)
    assert by["sft", "12.8b", 1]["change"] == "deepspeed.offload_optimizer=true"
    assert all(row["scaled_hours"] is None for row in outlook({}))


def test_the_share_of_an_operator_and_of_python():
    """Two steps of 5 s together: 3 s in products, 1 s in copies, 1 s in no operator."""
    from step_profile import shares

    found = shares({"wall_s": 5.0, "steps": 2, "operators": {"aten::copy_": [6, 1.0], "aten::mm": [8, 3.0]}})
    assert found["step_ms"] == 2500
    assert found["operators"][0] == {"operator": "aten::mm", "calls": 4, "ms": 1500.0, "share": 0.6}
    assert math.isclose(found["python"], 0.2)
    assert found["others"] == 0


# Peers


def test_the_error_of_a_peer_is_its_own_last_one():
    from peer_sides import reason

    log = (
        "[rank0]: Traceback (most recent call last):\n[rank0]: ValueError: Type fp16 is not supported on your device.\n"
        "Traceback (most recent call last):\ntorch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
    )
    assert reason(log, 1) == "ValueError: Type fp16 is not supported on your device."
    assert reason("nothing", 9) == "status 9"


def test_both_peers_are_given_the_same_training(tmp_path: Path):
    from peer_material import Rows
    from peer_sides import Task, peers

    task = Task("sft", tmp_path / "base", Rows(tmp_path / "ours", tmp_path, 8, 100), 1e-3)
    lf, swift = (peer.arguments(task, "grouped", engine=True) for peer in peers(tmp_path))
    own = {"output_dir", "template", "dataset"}  # each names them in its way
    alike = {key: (lf[key], swift[key]) for key in (lf.keys() & swift.keys()) - own}
    assert len(alike) > 12
    assert [key for key, (one, other) in alike.items() if one != other] == []
    assert json.loads(Path(lf["deepspeed"]).read_text())["zero_optimization"] == {"stage": 0}


# Peers that fail


class FakeBench:
    """Stage 1 in which a peer fails in the runs that are named; runs are counted from its trials on."""

    figure = "tokens_per_s"

    def __init__(self, failures: dict[str, dict[int, Exception]]) -> None:
        from types import SimpleNamespace

        self.task = SimpleNamespace(stage="sft")
        self.failures, self.runs = failures, {"lf": 0, "swift": 0}

    def ours(self, number: int) -> dict[str, Any]:
        return {"tokens_per_s": 30.0}

    def theirs(self, peer: Any, mode: str, *, engine: bool) -> dict[str, Any]:
        self.runs[peer.name] += 1
        if error := self.failures.get(peer.name, {}).get(self.runs[peer.name]):
            raise error
        return {"tokens_per_s": 10.0}


def compared_with(failures: dict[str, dict[int, Exception]], monkeypatch: pytest.MonkeyPatch) -> Any:
    from types import SimpleNamespace

    import peers

    monkeypatch.setattr(peers, "modes", lambda stage, name: ("padded",))
    found = peers.Found()
    peers.compare(FakeBench(failures), [SimpleNamespace(name="lf"), SimpleNamespace(name="swift")], 3, found)
    return found


def test_a_peer_that_fails_in_a_round_costs_itself_alone(monkeypatch: pytest.MonkeyPatch):
    from peer_sides import PeerFailedError

    found = compared_with({"lf": {3: PeerFailedError("out of memory")}}, monkeypatch)
    assert found.ratios == {"sft_swift": 3.0}
    assert found.missing == {"sft_lf": "ended within the rounds: out of memory"}
    assert found.impossible == []
    assert [list(each) for each in found.rounds["rounds_sft"]] == [["ours", "swift"]] * 3


@pytest.mark.parametrize("impossible", [True, False])
def test_a_peer_cannot_do_what_it_ends_in_every_setting(monkeypatch: pytest.MonkeyPatch, impossible: bool):
    from peer_sides import PeerError, PeerFailedError

    last = PeerFailedError("no PPO") if impossible else PeerError("no end after 9 s")
    found = compared_with({"lf": {1: PeerFailedError("no DeepSpeed"), 2: last}}, monkeypatch)
    assert found.missing == {"sft_lf": str(last)}
    assert found.impossible == (["sft_lf"] if impossible else [])
    assert found.ratios == {"sft_swift": 3.0}


def test_a_point_of_other_code_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import scaling

    monkeypatch.setattr(scaling, "state", lambda: QUIET)
    taken: list[int] = []

    def take() -> dict[str, Any]:
        taken.append(1)
        return {"x": 8, "time_s": 0.5, "memory_mib": 3.0}

    (tmp_path / "slots-8.json").write_text('{"x": 8, "time_s": 9.0}')  # of a version that noted no code
    for quick in (False, False, True):
        assert scaling.Bench(tmp_path, quick).kept("slots", 8, take)["time_s"] == 0.5
    assert len(taken) == 2
