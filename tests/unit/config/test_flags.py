import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from rlhf.config.flags import add_flags, add_section_flags, fill, fill_section, flag
from rlhf.config.rollout import VllmSection
from rlhf.config.sections import SamplingSection
from rlhf.errors import ConfigError

if TYPE_CHECKING:
    from somewhere import Unknown


def _twice(text: str) -> int:
    return 2 * int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    file: Path = flag(..., "file to read", positional=True)
    out: Path = flag(..., "file to write", metavar="OUT")
    source: str = flag("a", "what is read", name="--in")
    num_rows: int | None = flag(None, "rows at most", least=1)
    rate: float = flag(0.5, "share of 100 %")
    mode: Literal["", "fast", "slow"] = flag("", "how")
    mask: bool = flag(True, "mask names")
    quiet: bool = flag(False, "print nothing")
    models: tuple[str, ...] = flag((), "models", name="--model")
    files: list[Path] = flag([], "more files", nargs="+")
    doubled: int = flag(4, "a number, twice", parse=_twice)
    unflagged: "Unknown | None" = None
    counted: list[int] = field(default_factory=list)


def _parse(*words: str, **how: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser, Options, **how)
    return parser.parse_args(words)


def test_defaults_are_those_of_the_dataclass() -> None:
    assert fill(Options, _parse("x", "--out", "y")) == Options(file=Path("x"), out=Path("y"))


def test_each_type_is_read_as_declared() -> None:
    words = ["x", "--out", "y", "--in", "b", "--num-rows", "3", "--rate", "0.25", "--mode", "fast", "--no-mask"]
    lists = ["--quiet", "--model", "p", "--model", "q", "--files", "f", "g", "--doubled", "5"]
    options = fill(Options, _parse(*words, *lists))
    assert options == Options(
        file=Path("x"),
        out=Path("y"),
        source="b",
        num_rows=3,
        rate=0.25,
        mode="fast",
        mask=False,
        quiet=True,
        models=("p", "q"),
        files=[Path("f"), Path("g")],
        doubled=10,
    )


def test_repeated_flags_do_not_share_a_list() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, Options, only=["models", "files"])
    assert parser.parse_args(["--model", "p", "--files", "f"]).model == ["p"]
    assert parser.parse_args([]).model == []
    assert Options(file=Path("x"), out=Path("y")).files is not Options(file=Path("x"), out=Path("y")).files


@pytest.mark.parametrize("words", [["x"], ["--out", "y"], ["x", "--out", "y", "--mode", ""]])
def test_required_flags_and_choices_are_refused(words: list[str]) -> None:
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        _parse(*words)


def test_a_number_below_its_least_names_the_flag() -> None:
    with pytest.raises(ConfigError) as error:
        fill(Options, _parse("x", "--out", "y", "--num-rows", "0"))
    assert str(error.value) == "--num-rows: is 0\n  expected: at least 1"


def test_help_shows_what_can_be_given_and_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "--out OUT file to write --in TEXT what is read (default: a)" in shown
    assert "--num-rows N rows at most --rate X share of 100 % (default: 0.5) --mode {fast,slow} how" in shown
    assert "--mask, --no-mask mask names" in shown
    assert "--quiet print nothing --model TEXT models --files PATH [PATH ...] more files" in shown


def test_names_defaults_and_choice_of_fields_are_the_commands() -> None:
    arguments = _parse(only=["source", "rate"], names={"rate": "--judge-rate"}, source="c")
    assert vars(arguments) == {"in": "c", "judge_rate": 0.5}
    filled = fill(Options, arguments, names={"rate": "--judge-rate"}, file=Path("x"), out=Path("y"))
    assert filled == Options(file=Path("x"), out=Path("y"), source="c")
    assert "doubled" not in vars(_parse("x", "--out", "y", skip=["doubled"]))


def test_a_section_gives_its_descriptions_and_refuses_by_flag() -> None:
    parser = argparse.ArgumentParser()
    add_section_flags(parser, SamplingSection, ("max_new_tokens", "top_p", "stop"), max_new_tokens=256)
    description = SamplingSection.model_fields["max_new_tokens"].description
    assert f"--max-new-tokens N {description} (default: 256)" in " ".join(parser.format_help().split())
    assert fill_section(SamplingSection, parser.parse_args(["--stop", "끝"]), temperature=0) == SamplingSection(
        max_new_tokens=256, stop=["끝"], temperature=0
    )
    with pytest.raises(ConfigError) as error:
        fill_section(SamplingSection, parser.parse_args(["--top-p", "1.5", "--max-new-tokens", "0"]))
    assert [each.where for each in error.value.problems] == ["--max-new-tokens", "--top-p"]
    assert error.value.problems[0].problem == "is 0"


def test_flags_of_a_section_with_a_prefix() -> None:
    parser = argparse.ArgumentParser()
    add_section_flags(parser, VllmSection, ("python", "gpu_memory", "eager"), prefix="vllm", gpu_memory=0.85)
    parser.add_argument("--timeout-s", default=0.0)  # of something else
    found = fill_section(VllmSection, parser.parse_args(["--vllm-python", "p", "--vllm-eager"]), prefix="vllm")
    assert found == VllmSection(python="p", gpu_memory=0.85, eager=True)
    with pytest.raises(ConfigError, match=r"--vllm-gpu-memory: is 1\.5"):
        fill_section(VllmSection, parser.parse_args(["--vllm-gpu-memory", "1.5"]), prefix="vllm")
