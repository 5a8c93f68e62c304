"""Test prompts and answers that the model or one of its parents was trained on, found through their manifests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from rlhf.curate.row_texts import normalised
from rlhf.data.readers import locate, sha256_of
from rlhf.data.records import Demonstration, MarkedAnswers, Message, Prompt, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import DataError

MAX_EXAMPLES = 5
RANKING_FORMATS = ("ranking", "chosen-rejected")
Entry = dict[str, Any]  # of a manifest's `data`


class TrainingRows(NamedTuple):
    """What a model learned from: its own rankings; the last questions, normalised, of its rows and its parents'; and
    the files that cannot be read as they were in training, with the reason."""

    rankings: list[Ranking]
    questions: set[str]
    unread: list[str]


class Leakage(NamedTuple):
    """The card's section, and the test prompts (normalised) that were seen in training."""

    section: dict[str, Any]
    prompts: set[str]


def leakage(rankings: Sequence[Ranking], manifest: dict[str, Any] | None) -> Leakage:
    """Test prompts (last user turns) and answers that occur word for word in training data.

    Args:
        rankings: the test rows.
        manifest: of the model; None when it has none: then nothing is checked.
    """
    prompts = {last_question(ranking.prompt) for ranking in rankings}
    answers = {normalised(response) for ranking in rankings for response in ranking.responses}
    prompts_seen: set[str] = set()
    answers_seen: set[str] = set()
    checked, not_checked = [], []
    if manifest is None:
        not_checked.append({"path": "", "reason": "the model has no manifest.json"})
    for model, stage, entry in _training_files(manifest or {}):
        try:
            asked, learned = _texts(_training_records(entry, stage))
        except DataError as error:
            not_checked.append({"path": entry["path"], "reason": error.problem})
            continue
        prompts_seen |= prompts & asked
        answers_seen |= answers & learned
        counts = {"num_prompts": len(prompts & asked), "num_answers": len(answers & learned)}
        checked.append({"model": model, "stage": stage, "path": entry["path"], **counts})
    for model, each in _lineage(manifest or {}):
        unknown = {"path": each.get("path", ""), "reason": "no manifest: its training data is unknown"}
        if model != "model" and "data" not in each and unknown not in not_checked:
            not_checked.append(unknown)
    section = {
        "num_prompts": len(prompts),
        "num_prompts_seen": len(prompts_seen),
        "num_answers": len(answers),
        "num_answers_seen": len(answers_seen),
        "examples": sorted(prompts_seen)[:MAX_EXAMPLES],
        "checked": checked,
        "not_checked": not_checked,
    }
    return Leakage(section, prompts_seen)


def last_question(messages: Sequence[Message]) -> str:
    """The last user turn with its input, normalised."""
    last = next(message for message in reversed(messages) if message.role == "user")
    return normalised(f"{last.content}\n{last.input}")


def training_rankings(manifest: dict[str, Any] | None) -> list[Ranking]:
    """The rankings a reward model was trained on, from files that can be read as they were in training."""
    found: list[Ranking] = []
    for entry in (manifest or {}).get("data", []):
        if entry.get("role") == "train" and entry["format"] in RANKING_FORMATS:
            with suppress(DataError):
                found += _read_training(entry, Ranking)
    return found


def training_rows(manifest: dict[str, Any] | None) -> TrainingRows:
    """Reads every training file of a model and its parents, once."""
    found = TrainingRows([], set(), [] if manifest else ["it has no manifest"])
    for model, stage, entry in _training_files(manifest or {}):
        try:
            records = _training_records(entry, stage)
        except DataError as error:
            found.unread.append(f"{entry['path']}: {error.problem}")
            continue
        found.questions.update(_texts(records)[0])
        if model == "model":
            found.rankings.extend(each for each in records if isinstance(each, Ranking))
    return found


def _lineage(manifest: dict[str, Any], model: str = "model") -> Iterator[tuple[str, dict[str, Any]]]:
    """The manifests of a model, its parents and their parents, each with its place, as "model" or "base/base"."""
    yield model, manifest
    for role, parent in manifest.get("parents", {}).items():
        yield from _lineage(parent, role if model == "model" else f"{model}/{role}")


def _training_files(manifest: dict[str, Any]) -> list[tuple[str, str, Entry]]:
    """(place, stage, entry) of every training file of a lineage; one that two parents share comes once."""
    found: dict[tuple[Any, ...], tuple[str, str, Entry]] = {}
    for model, each in _lineage(manifest):
        stage = each.get("stage", "")
        for entry in each.get("data", []):
            if entry.get("role") == "train":
                found.setdefault((entry["path"], entry["sha256"], entry["num_kept"], stage), (model, stage, entry))
    return list(found.values())


def _training_records(entry: Entry, stage: str) -> list[Any]:
    """The rows of a training file as its stage reads them. Raises as `_read_training`."""
    single = MarkedAnswers if stage == "dpo" else Demonstration
    kind: type[Any] = Ranking if entry["format"] in RANKING_FORMATS else single
    return _read_training(entry, Prompt if stage == "ppo" else kind)


def _texts(records: Sequence[Any]) -> tuple[set[str], set[str]]:
    """Prompts of training rows, and their answers where the stage learns from them, normalised."""
    prompts: set[str] = set()
    answers: set[str] = set()
    for record in records:
        compared = isinstance(record, Ranking | MarkedAnswers)
        messages = record.prompt if compared else record.messages
        prompts.add(last_question(messages))
        if compared:
            answers.update(map(normalised, record.responses))
        elif isinstance(record, Demonstration):
            answers.add(normalised(messages[-1].content))
    return prompts, answers


def _read_training(entry: Entry, kind: type[Any]) -> list[Any]:
    """The records that training used from a file: its first usable rows, as many as the manifest counts.

    Raises: DataError for a file that is gone or was changed since.
    """
    try:
        location = locate(entry["path"])
    except DataError:
        raise DataError("no such file") from None
    if sha256_of(location) != entry["sha256"]:
        raise DataError("changed since training (another SHA-256)")
    source = DataSource(entry["path"], entry["format"], limit=entry["num_kept"])
    return read_records(source, kind, on_bad_row="skip").records
