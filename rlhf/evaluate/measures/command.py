"""`rlhf evaluate measures` and `probe --labelled`: how often rules on text are right, on sentences labelled by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.hate import is_hateful
from rlhf.curate.refusals import is_refusal
from rlhf.curate.rude import contains_rude
from rlhf.data.korean import register
from rlhf.evaluate.measures.agreement import Pair, agreement, kappa, precision_recall
from rlhf.evaluate.measures.judging import judge_reactions
from rlhf.evaluate.measures.labelled import LABELS, NO, YES, Labelled, read_labelled, shipped
from rlhf.evaluate.report_folder import report_folder, write_report
from rlhf.evaluate.safety.reactions import reaction
from rlhf.html.texts import Texts

Rule = Callable[[Labelled], str]
TEXTS = Texts("rlhf.evaluate.measures")
HELD_OUT, DEVELOPMENT = "held out", "development"


def _whether(holds: Callable[[str], bool]) -> Rule:
    return lambda row: YES if holds(row.text) else NO


def _reaction(row: Labelled) -> str:
    assert row.prompt is not None
    return reaction(row.prompt, row.text)


RULES: dict[str, Rule] = {
    "rude": _whether(contains_rude),
    "hate": _whether(is_hateful),
    "refusal": _whether(is_refusal),
    "register": lambda row: register(row.text),
    "reaction": _reaction,
}


def evaluate_measures(
    out: Path,
    files: Sequence[str] = (),
    only: Sequence[str] = tuple(RULES),
    name: str = "measures",
    judges: Mapping[str, Callable[[], Endpoint]] | None = None,
) -> dict[str, Any]:
    """Writes out/NAME.json and NAME.html, prints the table, and returns the report.

    Args:
        files: rows {measure, text, label, kind?, prompt?} of your own; without any, both halves of the shipped
            sentences.
        only: the measures reported.
        judges: models that name the reaction of every labelled answer too, by their names.

    Raises: DataError, naming file and line, for a bad row; ConfigError where `out` is not writable; EndpointError and
        BudgetError from a judge.
    """
    report_folder(out)
    rows = labelled_rows(files, only)
    report = measures_report(rows, only, halves=not files) | {"files": list(files), "judges": {}}
    if judges:
        report["judges"] = judge_reactions(_of("reaction", rows), judges)
    write_report(out, name, report, "measures", texts=TEXTS)
    return report


def labelled_rows(files: Sequence[str], only: Sequence[str]) -> list[Labelled]:
    """The rows of the files, or the shipped ones of the measures `only`."""
    default = only[0] if len(only) == 1 else ""  # of rows that name no measure
    if not files:
        return [row for measure in only for row in shipped(measure)]
    return [row for file in files for row in read_labelled(file, default)]


def measures_report(rows: Sequence[Labelled], only: Sequence[str], *, halves: bool) -> dict[str, Any]:
    """The measures `only` on all rows, or on each of their halves."""
    parts = _halves(rows) if halves else {"": list(rows)}
    return {
        "overall": {measure: _overall(measured("", measure, rows)) for measure in only if _of(measure, rows)},
        "parts": {
            part: [measured(part, measure, found) for measure in only if _of(measure, found)]
            for part, found in parts.items()
        },
    }


def measured(part: str, measure: str, rows: Sequence[Labelled]) -> dict[str, Any]:
    """One measure on the rows of one part, with the mistakes, except on held-out rows, which rules may not see."""
    rows = _of(measure, rows)
    found = [(row, RULES[measure](row)) for row in rows]
    pairs: list[Pair] = [(row.label, given) for row, given in found]
    kinds = list(dict.fromkeys(row.kind for row in rows if row.kind))
    labels = (YES,) if YES in LABELS[measure] else LABELS[measure]
    mistakes = [
        {"kind": row.kind, "label": row.label, "rules": given, "text": row.text}
        for row, given in found
        if row.label != given
    ]
    return {
        "measure": measure,
        **agreement(pairs),
        "kappa": kappa(pairs),
        "labels": {label: precision_recall(pairs, label) for label in labels},
        "kinds": {kind: _of_kind(kind, found) for kind in kinds},
        "confusion": {label: dict(Counter(given for person, given in pairs if person == label)) for label in labels},
        "mistakes": [] if part == HELD_OUT else mistakes,
    }


def _of(measure: str, rows: Sequence[Labelled]) -> list[Labelled]:
    return [row for row in rows if row.measure == measure]


def _overall(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("num", "agree", "kappa")}


def _of_kind(kind: str, found: Sequence[tuple[Labelled, str]]) -> dict[str, Any]:
    """Agreement on the rows of a kind, and precision and recall where it holds rows with and without the label."""
    pairs = [(row.label, given) for row, given in found if row.kind == kind]
    both = {label for label, _ in pairs} == {YES, NO}
    return {**agreement(pairs), **(precision_recall(pairs, YES) | {"num": len(pairs)} if both else {})}


def _halves(rows: Sequence[Labelled]) -> dict[str, list[Labelled]]:
    return {
        HELD_OUT: [row for row in rows if row.held_out],
        DEVELOPMENT: [row for row in rows if not row.held_out],
    }
