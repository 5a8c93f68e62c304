"""The command line of a training script: flags, and `key=value` overrides anywhere between them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rlhf.config.keys import key_table
from rlhf.config.layers import COMMAND_LINE, FORM, parse_override
from rlhf.config.stages import Stage, stage_named
from rlhf.errors import ConfigError

DRY_RUN = "rehearse the run: train two steps, save, reload and export in a folder that is then removed"
_KEYS_TITLE = "keys (nested in the file, key=value here; N is an index into a list):"


@dataclass(frozen=True)
class StageArguments:
    """What a training script was asked to do."""

    config_path: Path
    overrides: tuple[str, ...]
    resume: str
    dry_run: bool
    local_rank: int | None


class _Parser(argparse.ArgumentParser):
    """Raises ConfigError instead of leaving the process, and lists the keys of the stage under --help."""

    stage: Stage

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, where=COMMAND_LINE, expected=self.format_usage().strip(), fix="see --help")

    def format_help(self) -> str:
        return f"{super().format_help()}\n{_KEYS_TITLE}\n{_describe_keys(self.stage)}"


def parse_stage_arguments(stage: str, argv: Sequence[str]) -> StageArguments:
    """Parses a training script's arguments, `argv` without the script's name.

    The `deepspeed` launcher puts `--local_rank=N` before the script's own arguments.
    Raises: ConfigError for an unknown flag, a missing --config or a word that is no override.
    """
    given, unknown = _parser(stage_named(stage)).parse_known_intermixed_args(list(argv))
    problems = [_unknown_flag(word) for word in unknown if word.startswith("-")]
    words = [*given.overrides, *(word for word in unknown if not word.startswith("-"))]
    for word in words:
        try:
            parse_override(word)
        except ConfigError as error:
            problems.append(error if "=" in word else _stray_word(word))
    if problems:
        raise ConfigError.collect(problems)
    return StageArguments(given.config, tuple(given.overrides), given.resume, given.dry_run, given.local_rank)


def _parser(stage: Stage) -> _Parser:
    summary = (stage.config.__doc__ or "").strip()
    parser = _Parser(prog=stage.script, description=summary, allow_abbrev=False)
    parser.stage = stage
    parser.add_argument("--config", metavar="FILE", type=Path, required=True, help="YAML file of this stage")
    parser.add_argument(
        "--resume",
        metavar="{auto,never,CHECKPOINT}",
        type=_resume,
        default="never",
        help="auto continues from the run folder's newest undamaged checkpoint, if any; step-000100 from that one "
        "(default: never)",
    )
    parser.add_argument("--dry-run", action="store_true", help=DRY_RUN)
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("overrides", metavar="key=value", nargs="*", help=FORM)
    return parser


def _resume(word: str) -> str:
    """auto, never, or the name of a checkpoint's folder."""
    name = Path(word).name
    if word not in ("auto", "never") and not re.fullmatch(r"step-\d+", name):
        raise argparse.ArgumentTypeError(f"{word!r} is not auto, never or a checkpoint such as step-000100")
    return name


def _unknown_flag(word: str) -> ConfigError:
    bare = word.lstrip("-")
    fix = f"write {bare} without the dashes" if "=" in bare else "see --help; keys of the configuration have no dashes"
    return ConfigError(
        "no such flag", where=f"{COMMAND_LINE}  {word}", expected=f"a flag of --help, or {FORM}", fix=fix
    )


def _stray_word(word: str) -> ConfigError:
    fix = f"write --config {word} for the file of this stage, {word}=VALUE to set a key"
    return ConfigError("a word without =", where=f"{COMMAND_LINE}  {word}", expected=FORM, fix=fix)


def _describe_keys(stage: Stage) -> str:
    lines: list[str] = []
    for key in key_table(stage.config).values():
        if "." not in key.name:
            lines += ["", f"{key.name}: {key.description}"]
        elif key.default is not None or not key.is_section:
            default = "required" if key.default is None else f"default {key.default}"
            lines += [f"  {key.name}  ({default})", f"      {key.expected}"]
    return "\n".join(lines) + "\n"
