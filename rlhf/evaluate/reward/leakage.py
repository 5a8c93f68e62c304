"""Test prompts and answers that the model or one of its parents was trained on, found through their manifests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rlhf.curate.row_texts import normalised
from rlhf.data.readers import locate, sha256_of
from rlhf.data.records import Demonstration, Message, Prompt, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError

MAX_EXAMPLES = 5
RANKING_FORMATS = ("ranking", "chosen-rejected")


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """One `train` entry of a manifest; `model` is its place among the parents, as "model" or "base/base"."""

    model: str
    stage: str
    entry: dict[str, Any]


@dataclass(slots=True)
class TrainingTexts:
    """Texts of one training file, normalised."""

    prompts: set[str] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)


class Leakage(NamedTuple):
    """The card's section, and the test prompts (normalised) that were seen in training."""

    section: dict[str, Any]
    prompts: set[str]


def training_files(manifest: dict[str, Any], model: str = "model") -> Iterator[TrainingFile]:
    """Every training file of a model, its parents and their parents."""
    for entry in manifest.get("data", []):
        if entry.get("role") == "train":
            yield TrainingFile(model, manifest.get("stage", ""), entry)
    for role, parent in manifest.get("parents", {}).items():
        yield from training_files(parent, role if model == "model" else f"{model}/{role}")


def unknown_parents(manifest: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Parents without a manifest, whose training data is unknown."""
    for parent in manifest.get("parents", {}).values():
        if "data" not in parent:
            yield {"path": parent.get("path", ""), "reason": "no manifest: its training data is unknown"}
        yield from unknown_parents(parent)


def problem_with(entry: dict[str, Any]) -> str:
    """Why a training file cannot be read as it was in training; empty when it can."""
    try:
        location = locate(entry["path"])
    except DataError:
        return "no such file"
    return "" if sha256_of(location) == entry["sha256"] else "changed since training (another SHA-256)"


def last_question(messages: Sequence[Message]) -> str:
    """The last user turn with its input, normalised."""
    last = next(message for message in reversed(messages) if message.role == "user")
    return normalised(f"{last.content}\n{last.input}")


def read_training(entry: dict[str, Any], kind: type[Any]) -> list[Any]:
    """The records that training used from a file: its first usable rows, as many as the manifest counts."""
    source = DataSource(entry["path"], entry["format"], limit=entry["num_kept"])
    return read_records(source, kind, on_bad_row="skip").records


def seen_in(entry: dict[str, Any], stage: str) -> TrainingTexts:
    """Prompts of a training file, and its answers where the stage learns from them."""
    seen = TrainingTexts()
    kind: type[Any] = Ranking if entry["format"] in RANKING_FORMATS else Demonstration
    if stage == "ppo":
        kind = Prompt
    for record in read_training(entry, kind):
        messages = record.prompt if isinstance(record, Ranking) else record.messages
        seen.prompts.add(last_question(messages))
        if isinstance(record, Ranking):
            seen.answers.update(map(normalised, record.responses))
        elif isinstance(record, Demonstration):
            seen.answers.add(normalised(messages[-1].content))
    return seen


def leakage(rankings: Sequence[Ranking], manifest: dict[str, Any] | None) -> Leakage:
    """Test prompts (last user turns) and answers that occur word for word in training data.

    Args:
        rankings: the test rows.
        manifest: of the model; None when it has none: then nothing is checked.
    """
    prompts = [last_question(ranking.prompt) for ranking in rankings]
    answers = {normalised(response) for ranking in rankings for response in ranking.responses}
    everything, checked, not_checked = TrainingTexts(), [], []
    if manifest is None:
        not_checked.append({"path": "", "reason": "the model has no manifest.json"})
    for file in _once(training_files(manifest or {})):
        seen, reason = _read(file)
        if reason:
            not_checked.append({"path": file.entry["path"], "reason": reason})
            continue
        everything.prompts |= seen.prompts
        everything.answers |= seen.answers
        counts = {"num_prompts": len(set(prompts) & seen.prompts), "num_answers": len(answers & seen.answers)}
        checked.append({"model": file.model, "stage": file.stage, "path": file.entry["path"], **counts})
    not_checked += [each for each in unknown_parents(manifest or {}) if each not in not_checked]
    found = set(prompts) & everything.prompts
    section = {
        "num_prompts": len(set(prompts)),
        "num_prompts_seen": len(found),
        "num_answers": len(answers),
        "num_answers_seen": len(answers & everything.answers),
        "examples": sorted(found)[:MAX_EXAMPLES],
        "checked": checked,
        "not_checked": not_checked,
    }
    return Leakage(section, found)


def _read(file: TrainingFile) -> tuple[TrainingTexts, str]:
    """The texts of a training file, or why there are none."""
    if reason := problem_with(file.entry):
        return TrainingTexts(), reason
    try:
        return seen_in(file.entry, file.stage), ""
    except DataError as error:
        return TrainingTexts(), error.problem


def _once(files: Iterator[TrainingFile]) -> list[TrainingFile]:
    """Without the repetitions of a file that two parents share."""
    found: dict[tuple[Any, ...], TrainingFile] = {}
    for file in files:
        entry = file.entry
        found.setdefault((entry["path"], entry["sha256"], entry["num_kept"], file.stage), file)
    return list(found.values())


def training_rankings(manifest: dict[str, Any] | None) -> list[Ranking]:
    """The rankings a reward model was trained on, from files that did not change since."""
    found: list[Ranking] = []
    for entry in (manifest or {}).get("data", []):
        if entry.get("role") == "train" and entry["format"] in RANKING_FORMATS and not problem_with(entry):
            found += read_training(entry, Ranking)
    return found
