"""README.md of a published model: what it is, from what it was made, how it was measured, how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlhf.artifacts.changed_keys import changed_keys
from rlhf.artifacts.export import base_entry
from rlhf.artifacts.files import read_json, short_hash
from rlhf.artifacts.finished import FinishedRun
from rlhf.artifacts.reload import Outcome
from rlhf.artifacts.run_folder import RunFolder
from rlhf.html.templates import render

OF_THIS_MACHINE = ("run.dir", "data.train", "data.eval", "data.demonstrations")  # sources stand in the data table
ROLES_ABOVE = {"sft": "base", "reward": "base", "ppo": "actor"}
INNER_FIGURES = (  # of a report card's groups; the accuracy of every group is shown too
    "shortcuts.verdict",
    "calibration.ece",
    "kendall.tau_b",
    "length_correlation.spearman",
    "leakage.num_prompts_seen",
)


@dataclass(frozen=True, slots=True)
class Card:
    """What the export adds to what the run knows. `name` is the folder's."""

    name: str
    part: str
    dtype: str
    outcome: Outcome
    note: str


def model_card(finished: FinishedRun, card: Card) -> str:
    """The whole file, front matter first."""
    base = root_base(finished.manifest)
    licence = base_licence(base)
    assert card.part != "adapter" or finished.adapter is not None, "an adapter's card is of a run with an adapter"
    return render(
        "artifacts/README.md.j2",
        run=finished,
        card=card,
        base=base,
        licence=licence,
        front_matter=_front_matter(finished, licence),
        recipe=_recipe(finished),
        figures=_evaluation(finished),
        adapter=base_entry(finished.adapter) if card.part == "adapter" and finished.adapter else None,
        short_hash=short_hash,
        file_name=lambda path: Path(str(path)).name,
    )


def root_base(manifest: dict[str, Any]) -> str:
    """Path or hub id of the model that the first stage started from; empty when the manifest names none."""
    entry: dict[str, Any] = manifest
    while "parents" in entry:
        role = ROLES_ABOVE.get(str(entry.get("stage")), "base")
        if role not in entry["parents"]:
            break
        entry = entry["parents"][role]
    return str(entry.get("path", ""))


def base_licence(base: str) -> str:
    """`license` of the front matter of the base's README.md; empty where it is not known."""
    file = Path(base) / "README.md"
    if not base or not file.is_file():
        return ""
    parts = file.read_text(encoding="utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return ""
    try:
        matter = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return ""
    found = matter.get("license") if isinstance(matter, dict) else None
    return found if isinstance(found, str) else ""


def _front_matter(finished: FinishedRun, licence: str) -> str:
    matter: dict[str, Any] = {"language": ["ko"], "library_name": "transformers"}
    if licence:
        matter["license"] = licence
    matter["pipeline_tag"] = "text-classification" if finished.scalar else "text-generation"
    return yaml.safe_dump(matter, sort_keys=False)


def _recipe(finished: FinishedRun) -> list[tuple[str, str]] | None:
    """(key, JSON value) of every key that was changed; None where the run folder has no config.yaml."""
    file = finished.path / "config.yaml"
    if not file.is_file():
        return None
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    changed = changed_keys(config, finished.stage)
    return [(key, json.dumps(value, ensure_ascii=False)) for key, value, _ in changed if key not in OF_THIS_MACHINE]


def _evaluation(finished: FinishedRun) -> dict[str, Any]:
    """Held-out metrics of the run, and the figures of its report card."""
    report = finished.model / "report_card.json"
    figures = dict(_figures(read_json(report))) if report.is_file() else {}
    return dict(_last_evaluation(finished)) | figures


def _last_evaluation(finished: FinishedRun) -> Iterator[tuple[str, Any]]:
    """The newest value of each `eval/` metric."""
    file = RunFolder(finished.path).metrics
    newest: dict[str, Any] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        newest |= {name: value for name, value in json.loads(line).items() if name.startswith("eval/")}
    yield from newest.items()


def _figures(report: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Plain values of a report card, the accuracy of each group in it, and INNER_FIGURES."""
    for name, value in report.items():
        if isinstance(value, str | int | float):
            yield name, value
        elif isinstance(value, dict) and isinstance(value.get("accuracy"), int | float):
            yield f"{name}: accuracy", value["accuracy"]
    for dotted in INNER_FIGURES:
        group, name = dotted.split(".")
        if name in report.get(group, {}):
            yield f"{group}: {name}", report[group][name]
