"""README.md of a published model: what it is, from what it was made, how it was measured, how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rlhf.artifacts.changed_keys import changed_keys
from rlhf.artifacts.export import adapter_base
from rlhf.artifacts.files import read_json, short_hash
from rlhf.artifacts.finished import FinishedRun
from rlhf.artifacts.reload import Published
from rlhf.artifacts.run_folder import RunFolder
from rlhf.html.templates import render

OF_THIS_MACHINE = ("run.dir", "data.train", "data.eval", "data.demonstrations")  # sources stand in the data table
ROLES_ABOVE = {"sft": "base", "reward": "base", "ppo": "actor", "dpo": "base"}
INNER_FIGURES = (  # of a report card's groups; the accuracy of every group is shown too
    "shortcuts.verdict",
    "calibration.ece",
    "kendall.tau_b",
    "length_correlation.spearman",
    "leakage.num_prompts_seen",
)


def model_card(finished: FinishedRun, export: Published) -> str:
    """The whole file, front matter first; `export` is what it adds to what the run knows."""
    base = root_base(finished.manifest)
    licence = base_licence(base)
    matter = {"language": ["ko"], "library_name": "transformers"} | ({"license": licence} if licence else {})
    matter["pipeline_tag"] = "text-classification" if finished.scalar else "text-generation"
    assert export.part != "adapter" or finished.adapter is not None, "an adapter's card is of a run with an adapter"
    return render(
        "artifacts/README.md.j2",
        run=finished,
        export=export,
        base=base,
        licence=licence,
        front_matter=yaml.safe_dump(matter, sort_keys=False),
        recipe=_recipe(finished),
        figures=_evaluation(finished),
        adapter=adapter_base(finished.adapter) if export.part == "adapter" and finished.adapter else None,
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


def _recipe(finished: FinishedRun) -> list[tuple[str, str]] | None:
    """(key, JSON value) of every key that was changed; None where the run folder has no config.yaml."""
    file = finished.path / "config.yaml"
    if not file.is_file():
        return None
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    changed = changed_keys(config, finished.stage)
    return [(key, json.dumps(value, ensure_ascii=False)) for key, value, _ in changed if key not in OF_THIS_MACHINE]


def _evaluation(finished: FinishedRun) -> dict[str, Any]:
    """The newest value of each `eval/` metric of the run, and the figures of its report card."""
    found: dict[str, Any] = {}
    metrics, report = RunFolder(finished.path).metrics, finished.model / "report_card.json"
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []:
        found |= {name: value for name, value in json.loads(line).items() if name.startswith("eval/")}
    return found | (dict(_figures(read_json(report))) if report.is_file() else {})


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
