"""Runs of one stage beside one another: their curves in the same plots, and the settings that differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from rlhf.html.page import document, section, table
from rlhf.html.plots import LINE, figure, svg
from rlhf.errors import ArtifactError
from rlhf.runs.listing import RunSummary, columns, is_run, summarise
from rlhf.config.stages import STAGES
from rlhf.runs.plots import COLOURS, PANELS, Panel, Series, curves_of
from rlhf.runs.record import RunRecord, flat, read_run, shown

DASHES = ("-", "--", ":", "-.")  # a colour comes again with the next of them
CSS_DASHES = ("solid", "dashed", "dotted", "double")
TERMINAL_KEYS = 8
LONGEST_CELL = 40
HASH_DIGITS = 12
Differences = dict[str, list[str]]


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """The runs among `paths`; files are passed over, so that a folder's whole content can be named.

    Raises: ArtifactError for a folder that is no run, fewer than two runs, or runs of several stages.
    """
    folders = list(dict.fromkeys(path for path in paths if not path.is_file()))
    for path in folders:
        if not path.is_dir() or not is_run(path):
            what = "holds no run" if path.is_dir() else "does not exist"
            raise ArtifactError(f"{path} {what}", expected="run folders", fix="see `rlhf runs FOLDER` for those it has")
    begun = [path for path in folders if (path / "config.yaml").is_file()]
    if len(begun) < 2:
        raise ArtifactError(
            f"{len(begun)} of {len(folders)} runs have begun", expected="two or more", fix="name more run folders"
        )
    records = [read_run(path) for path in begun]
    stages = sorted({record.stage for record in records})
    if len(stages) > 1:
        named = "; ".join(f"{record.path} is {record.stage}" for record in records)
        raise ArtifactError(
            f"runs of different stages: {named}", expected="one stage", fix="compare each stage by itself"
        )
    return records


def labels(records: Sequence[RunRecord]) -> list[str]:
    """The folder's name of each run, or as much of its path as tells it from the others."""
    parts = [record.path.resolve().parts for record in records]
    for length in range(1, max(len(each) for each in parts) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [str(record.path) for record in records]


def setting_differences(records: Sequence[RunRecord]) -> Differences:
    """Values by key, one a run, of every key that is not the same in all; where a run has no such key, "-".

    Keys of the configuration come first, then what manifests say of data, ranks and packages, in brackets.
    """
    found: Differences = {}
    for facts in ([_settings(each) for each in records], [_facts(each) for each in records]):
        for key in dict.fromkeys(key for each in facts for key in each):
            values = [each.get(key, "-") for each in facts]
            if len(set(values)) > 1:
                found[key] = values
    return found


def _settings(record: RunRecord) -> dict[str, str]:
    return {key: shown(value) for key, value in flat(record.config).items() if key != "run.dir"}


def _facts(record: RunRecord) -> dict[str, str]:
    manifest = record.manifest
    data = {f"(data {each['role']}: {each['name']})": _hash(each) for each in manifest.get("data", [])}
    parents = {f"(from: {role})": _hash(each) for role, each in manifest.get("parents", {}).items()}
    packages = {f"({name})": version for name, version in manifest.get("packages", {}).items()}
    ranks = {"(ranks)": str(manifest["settings"]["world_size"])} if "settings" in manifest else {}
    return data | parents | ranks | packages


def _hash(entry: Mapping[str, str]) -> str:
    return str(entry.get("sha256", "-"))[:HASH_DIGITS]


def comparison_table(records: Sequence[RunRecord]) -> str:
    """A line a run for the terminal: how it ended, its best, and what it was set to."""
    differences = setting_differences(records)
    keys = list(differences)[:TERMINAL_KEYS]
    rows = [
        (*_cells(name, summarise(record.path)), *(_short(differences[key][number]) for key in keys))
        for number, (name, record) in enumerate(zip(labels(records), records, strict=True))
    ]
    more = len(differences) - len(keys)
    note = f"and {more} more keys that differ: see the page\n" if more else ""
    return columns((*_HEAD, *keys), rows) + note


_HEAD = ("run", "status", "steps", "best", "at step")


def _cells(name: str, run: RunSummary) -> tuple[str, ...]:
    best = ("", "") if run.best is None else (f"{run.best.metric} {run.best.value:.4g}", str(run.best.step))
    return (name, run.status, str(run.step), *best)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"


def render_comparison(records: Sequence[RunRecord]) -> str:
    """The whole page."""
    names = labels(records)
    title = f"{STAGES[records[0].stage].title}: {len(records)} runs"
    runs = [_cells(name, summarise(record.path)) for name, record in zip(names, records, strict=True)]
    differences = [(key, *values) for key, values in setting_differences(records).items()]
    settings = table(("key", *names), differences) if differences else "<p>No setting differs.</p>"
    body = "".join(
        (
            f"<h1>{escape(title)}</h1>{_key(names)}",
            section("Runs", table(_HEAD, runs)),
            section("What differs", settings),
            section("Curves", _curves(names, records)),
        )
    )
    return document(title, body)


def _key(names: Sequence[str]) -> str:
    """Which line is which run."""
    marks = "".join(
        f'<span style="white-space:nowrap;margin-right:1rem"><span style="display:inline-block;width:1.6rem;'
        f'border-top:3px {CSS_DASHES[_dash(number)]} {_colour(number)};vertical-align:middle"></span> '
        f"{escape(name)}</span> "
        for number, name in enumerate(names)
    )
    return f'<p class="path">{marks}</p>'


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _dash(number: int) -> int:
    return number // len(COLOURS) % len(DASHES)


def _curves(names: Sequence[str], records: Sequence[RunRecord]) -> str:
    """A plot for every metric of the panels that changes over a run, with the key above it."""
    curves = [curves_of(record.metrics) for record in records]
    logged = sorted({name for each in curves for name, (steps, _) in each.items() if len(steps) > 1})
    parts = []
    for panel in PANELS:
        for metric in _metrics_of(panel, logged):
            plot = _plot([each.get(metric) for each in curves])
            title = panel.title if metric == panel.names else f"{panel.title}: {metric}"
            caption = f'<p class="note">{escape(panel.caption)}</p>'
            parts.append(f"<h3>{escape(title)}</h3>{_key(names)}{plot}{caption}")
    return "".join(parts)


def _metrics_of(panel: Panel, logged: Sequence[str]) -> list[str]:
    found = [name for name in logged if re.fullmatch(panel.names, name)]
    return found if len(found) > any("/" in name for name in found) else []  # of a single source the whole says it


def _plot(series: Sequence[Series | None]) -> str:
    with figure(2.1) as (drawn, axes):
        for number, each in enumerate(series):
            if each is not None:
                sparse = {"marker": "o", "markersize": 3.5} if len(each[0]) <= 30 else {}
                style = {"color": _colour(number), "linestyle": DASHES[_dash(number)], **sparse}
                axes.plot(*each, linewidth=1.6, **style)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        return svg(drawn)
