"""The command line of the training scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.config.arguments import StageArguments, parse_stage_arguments
from rlhf.config.stages import STAGES
from rlhf.errors import ConfigError


def refuse(*argv: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_stage_arguments("sft", argv)
    return caught.value


def test_only_the_file_is_needed() -> None:
    expected = StageArguments(Path("my.yaml"), (), "never", dry_run=False, local_rank=None)
    assert parse_stage_arguments("sft", ["--config", "my.yaml"]) == expected


def test_overrides_stand_anywhere_between_flags() -> None:
    argv = ["a=1", "--config", "my.yaml", "b.c=[1,2]", "--resume", "auto", "d=x y", "--dry-run", "e=-1"]
    expected = StageArguments(Path("my.yaml"), ("a=1", "b.c=[1,2]", "d=x y", "e=-1"), "auto", True, None)
    assert parse_stage_arguments("ppo", argv) == expected


@pytest.mark.parametrize("flag", ["--local_rank=3", "--local-rank=3"])
def test_the_launcher_puts_the_local_rank_first(flag: str) -> None:
    given = parse_stage_arguments("reward", [flag, "--config", "my.yaml", "a=1"])
    assert (given.local_rank, given.overrides) == (3, ("a=1",))


def test_a_stray_word_is_explained() -> None:
    error = refuse("--config", "my.yaml", "other.yaml")
    assert error.where == "command line  other.yaml"
    assert error.problem == "a word without ="
    assert error.expected.startswith("key=value, such as train.lr=1e-5")
    assert error.fix == "write --config other.yaml for the file of this stage, other.yaml=VALUE to set a key"


def test_every_problem_of_the_line_is_shown() -> None:
    error = refuse("--config", "my.yaml", "word", "--train.lr=1", "x=[", "--conf", "y=1")
    assert {problem.where for problem in error.problems} == {
        "command line  word",
        "command line  --train.lr=1",
        "command line  x=[",
        "command line  --conf",
    }
    assert "fix:      write train.lr=1 without the dashes" in str(error)


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ([], "the following arguments are required: --config"),
        (["--config=a", "--resume=maybe"], "argument --resume: 'maybe' is not auto, never or a checkpoint such as"),
        (["--config=a", "--local_rank=x"], "argument --local_rank/--local-rank: invalid int value: 'x'"),
    ],
)
def test_wrong_flags_are_configuration_errors(argv: list[str], problem: str) -> None:
    error = refuse(*argv)
    assert error.problem.startswith(problem)
    assert "usage: step1_sft.py" in error.expected


@pytest.mark.parametrize(("stage", "script"), [("sft", "step1_sft"), ("reward", "step2_reward"), ("ppo", "step3_ppo")])
def test_help_lists_flags_and_every_key(stage: str, script: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_stage_arguments(stage, ["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert shown.startswith(f"usage: {script}.py")
    flags = ("--config FILE", "--resume {auto,never,CHECKPOINT}", "--dry-run", "key=value")
    assert all(flag in shown for flag in flags)
    assert "local_rank" not in shown
    lines = shown.splitlines()
    for section, field in STAGES[stage].config.model_fields.items():
        start = next(i for i, line in enumerate(lines) if line.startswith(f"{section}: "))
        body = lines[start + 1 : lines.index("", start)] if "" in lines[start:] else lines[start + 1 :]
        named = [line.split()[0] for line in body if not line.startswith("    ")]
        for key in type(field.default).model_fields:
            assert f"{section}.{key}" in named


def test_help_shows_defaults_of_the_stage_and_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_stage_arguments("ppo", ["-h"])
    shown = capsys.readouterr().out
    # the actor's 1e-06, not the 1e-05 of the other stages; a nested group; an entry of a list without default
    assert "  train.lr  (default 1e-06)\n      a number above 0; peak learning rate of the actor\n" in shown
    assert "  model.lora.rank  (default 8)\n" in shown
    assert "  data.train.N.path  (required)\n" in shown
    assert "  data.train  (default [])\n" in shown
    assert "  data.train.N  " not in shown
