"""Whether a stage may start: its parents are finished and the reward model passes its gate. Reads files only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import StageConfig
from rlhf.errors import ArtifactError
from rlhf.evaluate.reward.gate import require_accuracy


def parents_of(config: StageConfig) -> dict[str, str]:
    """The models a stage starts from, as {configuration key: path}."""
    named = {"model.path": config.model.path, "model.adapter": config.model.adapter or ""}
    if isinstance(config, PpoConfig):
        named |= {"actor.path": config.actor.path, "reference.path": config.reference.path}
        named |= {"critic.path": config.critic.path, "reward.path": config.reward.path}
    return {key: path for key, path in named.items() if path}


def require_parents(config: StageConfig) -> None:
    """Refuses to start from runs that are not finished, or with a reward model that is no better than chance.

    Raises: ArtifactError that names the key, the run and its state.
    """
    for problem in parent_problems(config):
        raise problem


def parent_problems(config: StageConfig) -> Iterator[ArtifactError]:
    """Every reason why a stage cannot start from the models that it names."""
    for key, path in parents_of(config).items():
        if not Path(path).is_dir() and Path(path).name == "model":
            yield ArtifactError(f"no such folder: {path}", where=key, fix="train that stage first, or correct the path")
        run = run_of(path)
        if run is not None and run.status() != "finished":
            reason = run.state().get("reason", "")
            yield ArtifactError(
                f"{run.path} is {run.status()}{f': {reason}' if reason else ''}",
                where=key,
                expected="a run whose state.json says finished",
                fix="finish it with --resume auto",
            )
    if isinstance(config, PpoConfig) and config.reward.path:
        folder = Path(config.reward.path)
        inner = folder / "model"
        try:
            require_accuracy(str(inner if inner.is_dir() else folder), config.reward.min_accuracy)
        except ArtifactError as problem:
            yield problem


def run_of(path: str) -> RunFolder | None:
    """The run that a model path belongs to: a run folder itself, or its model/; None for any other model."""
    for folder in (Path(path), Path(path).parent):
        if (folder / "state.json").is_file():
            return RunFolder(folder)
    return None
