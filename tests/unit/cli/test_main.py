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


def _loaded(words: list[str], packages: tuple[str, ...]) -> tuple[str, set[str]]:
    """What a command prints, and which of the packages it has imported then."""
    code = (
        "import sys\nfrom rlhf.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        f"print('loaded', *({set(packages)} & sys.modules.keys()))"
    )
    shown = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True).stdout
    help_text, _, names = shown.rpartition("loaded")
    return help_text, set(names.split())


def test_the_list_of_commands_imports_nothing_heavy() -> None:
    shown, loaded = _loaded(["--help"], ("torch", "pydantic", "numpy", "yaml", "rlhf.config.schema"))
    assert "quickstart" in shown
    assert loaded == set()


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("serve", "--max-file-mb MB"),
        ("plan", "--gpu-memory GB"),
        ("export", "--max-shard-size SIZE"),
        ("quickstart", "--lora"),
        ("data sample", "--max-prompt-tokens N"),
        ("data judge", "--form-retries N"),
        ("evaluate compare", "--judge-samples N"),
        ("evaluate benchmark", "--num-fewshot N"),
    ],
)
def test_the_help_of_a_command_shows_its_flags_without_torch(words: str, flag: str) -> None:
    shown, loaded = _loaded([*words.split(), "--help"], ("torch", "transformers"))
    assert flag in shown
    assert loaded == set()
