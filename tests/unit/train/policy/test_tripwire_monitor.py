"""What a trip does to a run: reported, written, and acted on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.ppo import PpoConfig
from rlhf.train.policy.tripwire_monitor import TripwireMonitor
from tests.support.tables import EOS, ONE_RANK, sample


class Letters:
    """A tokenizer that reads every token as one syllable."""

    def text(self, ids: list[int]) -> str:
        return "가" * len(ids)


def monitor(folder: Path, action: str, before: Any = None) -> TripwireMonitor:
    store = SimpleNamespace(before=lambda step: before)
    config = PpoConfig.model_validate({"tripwires": {"kl": {"action": action}}})
    run: Any = SimpleNamespace(
        config=config, ranks=ONE_RANK, folder=RunFolder(folder), store=store, on_main=lambda act: act()
    )
    return TripwireMonitor(run, Letters())  # type: ignore[arg-type]


def test_lower_lr_halves_the_rates_at_each_trip_and_the_trip_is_written(tmp_path: Path) -> None:
    """It trips at steps 1 and 8, after five iterations (3 to 7) without its condition."""
    said: list[str] = []
    tripwires = monitor(tmp_path, "lower_lr")
    for step, kl in enumerate([30.0, 30.0, 0, 0, 0, 0, 0, 30.0], start=1):
        tripwires.observe(step, {"objective/kl": kl, "not_watched": 1.0}, said.append)
        assert tripwires.rate == (0.25 if step == 8 else 0.5)
    assert not tripwires.stopped
    assert not tripwires.rolls_back
    lines = [json.loads(line) for line in (tmp_path / "tripwires.jsonl").read_text().splitlines()]
    assert [(line["step"], line["wire"], line["action"]) for line in lines] == [
        (1, "kl", "lower_lr"),
        (8, "kl", "lower_lr"),
    ]
    assert said[0].startswith("tripwire kl, step 1 (lower_lr): KL to the reference is 30 nats per sequence, limit 20")


@pytest.mark.parametrize(
    ("action", "checkpoint", "stopped", "rolls_back"),
    [
        ("warn", None, False, False),
        ("stop", None, True, False),
        ("rollback", "step-000002", False, True),
        ("rollback", None, True, False),  # there is nothing to go back to
    ],
)
def test_each_action_does_what_it_says(
    tmp_path: Path, action: str, checkpoint: str | None, stopped: bool, rolls_back: bool
) -> None:
    tripwires = monitor(tmp_path, action, checkpoint)
    tripwires.observe(3, {"objective/kl": 30.0}, lambda _: None)
    assert (tripwires.stopped, tripwires.rolls_back, tripwires.rate) == (stopped, rolls_back, 1.0)


def test_a_wire_that_no_longer_stops_lets_a_resumed_run_continue(tmp_path: Path) -> None:
    tripwires = monitor(tmp_path, "stop")
    tripwires.observe(3, {"objective/kl": 30.0}, lambda _: None)
    for action, stopped in (("stop", True), ("warn", False)):
        resumed = monitor(tmp_path, action)
        resumed.resume(tripwires.state)
        assert resumed.stopped == stopped


def test_answers_are_measured_with_their_scores(tmp_path: Path) -> None:
    """Answers of 3 and 1 tokens with scores 5 and 1: two reward units per token."""
    found = monitor(tmp_path, "warn").measure([sample([2], [5, 6, EOS], score=5.0), sample([2], [EOS], score=1.0)])
    assert found["objective/reward_length_slope"] == pytest.approx(2.0)
    assert found["text/length_chars"] == 2
    assert "objective/held_out_reward" not in found
