"""Runs of one stage beside one another: their curves in the same plots, and the settings that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from markupsafe import Markup

from rlhf.artifacts.changed_keys import shown
from rlhf.artifacts.files import short_hash
from rlhf.artifacts.run_folder import short_names
from rlhf.errors import ArtifactError
from rlhf.html.templates import render
from rlhf.html.texts import Texts
from rlhf.html.words import Words
from rlhf.runs.listing import columns, is_run, outcome_cells
from rlhf.runs.plots import COLOURS, Curve, Panel, curves_of, curves_plot, panels
from rlhf.runs.record import RunRecord, flat, read_run

TEXTS = Texts("rlhf.runs")
DASHES = ("-", "--", ":", "-.")  # a colour comes again with the next of them
CSS_DASHES = ("solid", "dashed", "dotted", "double")
HEAD = ("run", "status", "steps", "best", "at step")
TERMINAL_KEYS = 8
LONGEST_CELL = 40
Differences = dict[str, list[str]]


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """The runs among `paths`; files are skipped, so that a folder's whole content can be named.

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
    """The folder's name of each run, or as much of its path as distinguishes it from the others."""
    return short_names([str(record.path.resolve()) for record in records])


def setting_differences(records: Sequence[RunRecord]) -> Differences:
    """Values by key, one per run, of every key that is not the same in all; "-" where a run has no such key.

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
    return short_hash(entry.get("sha256")) or "-"


def comparison_table(records: Sequence[RunRecord]) -> str:
    """One line per run for the terminal: how it ended, its best value, and its settings that differ."""
    differences = setting_differences(records)
    keys = list(islice(differences, TERMINAL_KEYS))
    rows = [
        (name, *outcome_cells(record), *(_cut(differences[key][number]) for key in keys))
        for number, (name, record) in enumerate(zip(labels(records), records, strict=True))
    ]
    more = len(differences) - len(keys)
    note = f"and {more} more keys that differ: see the page\n" if more else ""
    return columns((*HEAD, *keys), rows) + note


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"


def render_comparison(records: Sequence[RunRecord]) -> str:
    """The whole page."""
    names = labels(records)
    return render(
        "runs/comparison.html.j2",
        title=Words("{}: 실행 {}개", "{}: {} runs").format(TEXTS.named("stage", records[0].stage), len(records)),
        names=names,
        marks=[{"name": name, "colour": _colour(at), "dash": CSS_DASHES[_dash(at)]} for at, name in enumerate(names)],
        rows=[(name, *outcome_cells(record)) for name, record in zip(names, records, strict=True)],
        differences=[(key, *values) for key, values in setting_differences(records).items()],
        plots=_plots(records),
    )


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _dash(number: int) -> int:
    return number // len(COLOURS) % len(DASHES)


def _plots(records: Sequence[RunRecord]) -> list[tuple[Words, Panel, Markup]]:
    """(title, panel, plot) of every metric of the panels that changes over a run."""
    curves = [curves_of(record.metrics) for record in records]
    logged = {name for each in curves for name, (steps, _) in each.items() if len(steps) > 1}
    plots = []
    for panel in panels():
        for metric in panel.among(logged):
            lines = [
                Curve(each[metric], _colour(number), dash=DASHES[_dash(number)])
                for number, each in enumerate(curves)
                if metric in each
            ]
            single = metric == panel.metrics
            title = panel.title if single else Words("{}: {}", "{}: {}").format(panel.title, metric)
            plots.append((title, panel, curves_plot(lines)))
    return plots
