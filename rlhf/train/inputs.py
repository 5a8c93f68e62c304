"""Data and models as a stage receives them: read, audited, rendered and counted before any step is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from rlhf.config.sections import DataSection, SourceSection
from rlhf.data.embedded import data_path
from rlhf.data.encode import Encoder
from rlhf.data.loader import RowStream
from rlhf.data.records import Demonstration, Message, Prompt, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import ConfigError

Record = TypeVar("Record", Demonstration, Ranking, Prompt)
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Item]):
    """Rows of several sources, one after another."""

    items: list[Item]
    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    reports: list[dict[str, Any]]

    def stream(self, *, seed: int, batch_size: int, epochs: float) -> RowStream:
        """The order in which training sees the rows."""
        return RowStream(self.sizes, self.weights, seed, batch_size, epochs)


def load(
    data: DataSection,
    sources: Sequence[SourceSection],
    kind: type[Record],
    encode: Callable[[Sequence[Record]], list[Item]],
    *,
    key: str,
    limit: int | None = None,
) -> Loaded[Item]:
    """Reads every source as records of `kind` and encodes them.

    Raises: ConfigError when no source is given; DataError for what cannot be read.
    """
    if not sources:
        raise ConfigError("no data is named", where=key, fix=f"set {key}=FILE")
    items: list[Item] = []
    sizes, reports = [], []
    for source in sources:
        records, report = _records(source, kind, data.on_bad_row)
        encoded = encode(records[:limit])
        items += encoded
        sizes.append(len(encoded))
        reports.append(report)
    return Loaded(items, tuple(sizes), tuple(source.weight for source in sources), reports)


def read_first(data: DataSection, source: SourceSection, kind: type[Record], count: int) -> list[Record]:
    """The first records of a source, not encoded; the rest of the file is not parsed."""
    few = source.model_copy(update={"limit": min(count, source.limit or count)})
    return _records(few, kind, data.on_bad_row)[0][:count]


def _records(
    source: SourceSection, kind: type[Record], on_bad_row: Literal["error", "skip"]
) -> tuple[list[Any], dict[str, Any]]:
    path = data_path(source.path)
    name = source.name or Path(path.partition("#")[0]).stem
    wanted = DataSource(path, source.format, name=name, limit=source.limit)
    expand = kind is Demonstration and source.answers == "all"
    if expand:
        rankings = read_records(wanted, Ranking, on_bad_row=on_bad_row)
        demonstrations = [each for record in rankings.records for each in _every_answer(record)]
        return demonstrations, {**asdict(rankings.report), "name": name, "weight": source.weight}
    found = read_records(wanted, kind, on_bad_row=on_bad_row)
    return found.records, {**asdict(found.report), "name": name, "weight": source.weight}


def _every_answer(ranking: Ranking) -> list[Demonstration]:
    return [
        Demonstration((*ranking.prompt, Message("assistant", response)), ranking.source)
        for response in ranking.responses
    ]


def encode_summary(encoder: Encoder) -> str:
    """One line a person can read before paying for the run."""
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


def fresh_report(encoder: Encoder) -> Encoder:
    """The same encoder with its counts at zero."""
    return replace(encoder, report=type(encoder.report)())
