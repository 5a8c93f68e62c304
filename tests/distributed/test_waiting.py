"""How long ranks wait for one another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.distributed.conftest import WORKERS
from tests.support.launcher import run_deepspeed

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("waiting")
    run_deepspeed(WORKERS / "waiting.py", out, ranks=2)
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_every_group_waits_ten_minutes_longer_than_the_watchdog(observed: list[dict[str, Any]]) -> None:
    for found in observed:
        assert found["timeouts"] == [3600.0]  # 50 minutes of a step and 10
        assert found["groups"] >= 2  # the world and DeepSpeed's own


def test_rank_0_may_work_longer_than_a_collective_waits(observed: list[dict[str, Any]]) -> None:
    for found in observed:
        assert found["result"] == "an answer"
        assert found["error"] == ["a bad row", "mend it"]
        assert found["gathered"] == [0, 10]
    assert observed[1]["late"] == "timed out"  # a collective does not wait so long
