"""The process group of one rank: its collectives on the device, and the time-out of every group."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu.conftest import Record, Target, run_gpu_worker

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(60)]


def test_collectives_and_timeouts(target: Target, tmp_path: Path, record_property: Record) -> None:
    found = run_gpu_worker("ranks.py", target=target, out=tmp_path)
    record_property("backend", found["backend"])
    if target.on_gpu:
        assert "nccl" in found["backend"]
        assert found["device"].startswith("cuda")
    assert found["sum"] == found["broadcast"] == [3.0, 5.0]
    assert found["gathered"] == [[3.0, 5.0]]
    assert found["global sum"] == [8.0, 1.5]
    assert found["objects"] == [{"rank": 0}]
    assert len(found["timeouts"]) >= 2  # the world and DeepSpeed's own
    assert set(found["timeouts"]) == {3600.0}  # 50 minutes of a step and 10
