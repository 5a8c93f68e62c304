"""Training data of a stage: read, checked, rendered and counted before the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from rlhf.config.schema import StageConfig
from rlhf.config.sections import AnswerSource, DataSection, SourceSection, TrainingSource
from rlhf.data.byte_streams import name_of
from rlhf.data.embedded import data_path
from rlhf.data.encode import Encoder
from rlhf.data.loader import RowStream
from rlhf.data.records import Demonstration, Message, Prompt, Ranking
from rlhf.data.row_keys import unread_summary
from rlhf.data.sources import DataSource, SourceReport, nothing_usable, placed, read_records
from rlhf.errors import ConfigError, DataError

Record = TypeVar("Record", Demonstration, Ranking, Prompt)
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class LoadedRows(Generic[Item]):
    """Encoded rows of several sources, one source after another."""

    items: list[Item]
    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    reports: list[dict[str, Any]]

    @property
    def notes(self) -> str:
        """What was left out of the sources: bad rows, ties and unread keys, for the person who starts the run."""
        return "".join(f"; {note}" for report in self.reports for note in _notes(report))

    def stream(
        self, *, seed: int, batch_size: int, epochs: float, first_by: tuple[int, ...] | None = None
    ) -> RowStream:
        """The order in which training uses the rows; `first_by` as in `RowStream`."""
        return RowStream(self.sizes, self.weights, seed, batch_size, epochs, first_by)


def load(
    data: DataSection,
    sources: Sequence[SourceSection],
    kind: type[Record],
    encode: Callable[[Sequence[Record]], list[Item]],
    *,
    key: str,
    limit: int | None = None,
) -> LoadedRows[Item]:
    """Reads every source as records of `kind` and encodes them.

    A row that `encode` refuses is a bad row like one that cannot be read: `data.on_bad_row` decides.

    Raises: ConfigError when no source is given; DataError, with file and line, for a row that cannot be used.
    """
    if not sources:
        raise ConfigError("no data is named", where=key, fix=f"set {key}=FILE")
    items: list[Item] = []
    sizes, weights, reports = [], [], []
    for source in sources:
        read = _read(source, kind, data.on_bad_row)
        encoded = _encoded(read, encode, data.on_bad_row, limit)
        items += encoded
        sizes.append(len(encoded))
        weights.append(source.weight if isinstance(source, TrainingSource) else 1.0)
        reports.append({**asdict(read.report), "name": read.name, "weight": weights[-1]})
    return LoadedRows(items, tuple(sizes), tuple(weights), reports)


def load_train_and_eval(
    config: StageConfig,
    kind: type[Record],
    encoder: Encoder,
    encode: Callable[[Encoder], Callable[[Sequence[Record]], list[Item]]],
) -> tuple[tuple[LoadedRows[Item], str], tuple[LoadedRows[Item], str]]:
    """Training rows and held-out rows (none without data.eval), each with a line that sums up what was read."""
    data = config.data
    loaded = load(data, data.train, kind, encode(encoder), key="data.train")
    train = loaded, encode_summary(encoder) + loaded.notes
    if not data.eval:
        return train, (LoadedRows([], (), (), []), "")
    encoder = replace(encoder, report=type(encoder.report)())
    held_out = load(data, data.eval, kind, encode(encoder), key="data.eval", limit=config.eval.max_rows)
    return train, (held_out, encode_summary(encoder) + held_out.notes)


def load_first(
    data: DataSection,
    source: SourceSection,
    kind: type[Record],
    encode: Callable[[Sequence[Record]], list[Item]],
    count: int,
) -> list[Item]:
    """The first rows of a source, without parsing the rest of the file. Bad rows are treated as in `load`."""
    few = source.model_copy(update={"limit": min(count, source.limit or count)})
    return _encoded(_read(few, kind, data.on_bad_row), encode, data.on_bad_row, count)


def _notes(report: dict[str, Any]) -> list[str]:
    counts = {
        "bad rows skipped": report["num_skipped"],
        "rankings left out because all tie": report["num_tied"],
    }
    notes = [f"{count:,} {what}" for what, count in counts.items() if count]
    if report["unread"]:
        notes.append(unread_summary(report["unread"]))
    return [f"{report['name']}: {', '.join(notes)}"] if notes else []


@dataclass(frozen=True, slots=True)
class _Read:
    """Rows of a source: the line of each, and its records (several where all answers of a ranking are used)."""

    path: str
    name: str
    rows: list[tuple[int, list[Any]]]
    report: SourceReport


def _read(source: SourceSection, kind: type[Record], on_bad_row: Literal["error", "skip"]) -> _Read:
    path = data_path(source.address)
    name = source.name or name_of(path)
    wanted = DataSource(path, source.format, name, source.limit, tuple(source.ignore))
    if isinstance(source, AnswerSource) and source.answers == "all":
        rankings = read_records(wanted, Ranking, on_bad_row=on_bad_row)
        answers = [_every_answer(record) for record in rankings.records]
        return _Read(path, name, list(zip(rankings.lines, answers, strict=True)), rankings.report)
    found = read_records(wanted, kind, on_bad_row=on_bad_row)
    rows = [(line, [record]) for line, record in zip(found.lines, found.records, strict=True)]
    return _Read(path, name, rows, found.report)


def _encoded(
    read: _Read,
    encode: Callable[[Sequence[Any]], list[Item]],
    on_bad_row: Literal["error", "skip"],
    limit: int | None,
) -> list[Item]:
    """Items of the first usable rows, at most `limit`; a row that cannot be encoded stops the run or is skipped."""
    items: list[Item] = []
    for line, records in read.rows:
        if limit is not None and len(items) >= limit:
            break
        try:
            items += encode(records)
        except DataError as error:
            if on_bad_row == "error":
                raise placed(error, f"{read.path}:{line}") from None
            read.report.take_back(error, line)
    if not items:
        raise nothing_usable(read.report)
    return items[:limit]


def _every_answer(ranking: Ranking) -> list[Demonstration]:
    return [
        Demonstration((*ranking.prompt, Message("assistant", response)), ranking.source)
        for response in ranking.responses
    ]


def encode_summary(encoder: Encoder) -> str:
    """One line on what was read, for the person who starts the run."""
    report = encoder.report
    cuts = {
        "with old turns dropped": report.rows_with_dropped_turns,
        "with the prompt cut": report.rows_with_cut_prompt,
        "with the answer cut (no EOS)": report.rows_with_cut_answer,
    }
    notes = [f"{count} rows {name}" for name, count in cuts.items() if count]
    if report.special_texts_removed:
        notes.append(f"{report.special_texts_removed} special-token texts removed from data")
    return f"{report.num_rows:,} rows, {report.num_tokens:,} tokens" + "".join(f"; {note}" for note in notes)
