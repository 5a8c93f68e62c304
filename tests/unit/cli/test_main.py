"""The command line as a shell sees it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rlhf.cli import COMMANDS, main


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "rlhf", "config", "schema", "--stage", "sft"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_error_has_no_traceback(capsys) -> None:
    assert main(["report", "no/such/run"]) == 1
    shown = capsys.readouterr().err
    assert "no/such/run" in shown
    assert "Traceback" not in shown


def test_every_command_says_what_it_is_for(capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    names = [command.name for command in COMMANDS]
    assert len(names) > 10
    assert [name for name in names if f"\n    {name} " not in shown and f"\n    {name}\n" not in shown] == []
