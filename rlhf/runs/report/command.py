"""`rlhf report`: a run folder, or all runs of a project, as one page from the files they left; no model is loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rlhf.artifacts.files import write_text
from rlhf.errors import ConfigError
from rlhf.html.plots import require_matplotlib
from rlhf.runs.listing import find_runs, is_run
from rlhf.runs.project import COMPARISON, read_project
from rlhf.runs.record import read_run
from rlhf.runs.report.page import render_project, render_run


def write_report(folders: Sequence[str], out: str | None) -> Path:
    """Writes the page of a run, or of all runs and comparisons among and below `folders`: FOLDER/report.html, or `out`.

    Raises: ConfigError without matplotlib, and for several folders without `out`; ArtifactError for a folder that is no
    run of this project and holds none.
    """
    require_matplotlib()
    paths = [Path(folder) for folder in folders]
    if len(paths) > 1 and not out:
        raise ConfigError("several folders make one page, and --out does not name it", fix="--out report.html")
    page = render_run(read_run(paths[0])) if _is_one_run(paths) else render_project(read_project(paths))
    target = Path(out) if out else paths[0] / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page)
    sys.stdout.write(f"{target}\n")
    return target


def _is_one_run(paths: Sequence[Path]) -> bool:
    """Whether this is a run, or nothing, which `read_run` refuses with its reason."""
    if len(paths) > 1:
        return False
    folder = paths[0]
    if is_run(folder) or (folder / "config.yaml").is_file() or not folder.is_dir():
        return True
    return not find_runs([folder]) and not (folder / COMPARISON).is_file()
