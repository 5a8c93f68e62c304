"""How ranks meet."""

from __future__ import annotations

import socket

import pytest

from rlhf.engine.op_builds import guard_op_builds
from rlhf.engine.process_group import collective_timeout, join_group
from rlhf.errors import TrainingError


def test_a_port_that_is_taken_is_named_with_the_flag_that_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        words = {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        for name, value in words.items():
            monkeypatch.setenv(name, value)
        guard_op_builds()  # as a stage does: a cache that nobody guards is rebuilt for a minute
        with pytest.raises(TrainingError, match=f"cannot connect at port {port} of 127.0.0.1") as caught:
            join_group(collective_timeout(60))
    assert f"--master_port {port + 1}" in caught.value.fix


@pytest.mark.parametrize(("step_limit_s", "minutes"), [(60.0, 40), (1800.0, 40), (3000.0, 60), (None, 7 * 24 * 60)])
def test_a_collective_waits_ten_minutes_longer_than_the_watchdog(step_limit_s: float | None, minutes: int) -> None:
    """And no less than half an hour and ten minutes, as loading and export take longer than a short step."""
    assert collective_timeout(step_limit_s).total_seconds() == 60 * minutes
