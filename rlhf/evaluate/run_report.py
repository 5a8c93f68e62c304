"""`rlhf report`: a run folder as one page, from the files the run left. Nothing is computed by a model."""

from __future__ import annotations

import sys
from pathlib import Path

from rlhf.artifacts.files import write_text
from rlhf.artifacts.page import require_matplotlib
from rlhf.evaluate.run_page import render_run
from rlhf.evaluate.run_record import read_run


def write_report(run: str, out: str | None) -> Path:
    """Writes the page of a run folder: RUN/report.html, or `out`.

    Raises: ConfigError without matplotlib; ArtifactError for a folder that is no run of this project.
    """
    require_matplotlib()
    record = read_run(Path(run))
    target = Path(out) if out else record.path / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, render_run(record))
    sys.stdout.write(f"{target}\n")
    return target
