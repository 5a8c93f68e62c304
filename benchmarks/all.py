"""Everything that fits into an hour on two cores, as one JSON and one Markdown table.

python benchmarks/all.py --out bench.json [--data DIR] [--minutes 60] [--only sft,ppo] [--quick]

Runs the scripts of bench_parts.py one after the other. Each leaves its result in the work folder beside --out; a part
whose result is there already, of the same code, rows and words, is not run again, so an interrupted benchmark goes on.
A part that fails, cannot run here or no longer fits into the time is named with the reason, and the others are run. The
rows, with the load and the clock's drift while each was measured, are those of bench_rows.py. Without --data the rows
that ship with the package are trained on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_parts import PARTS, Part
from bench_rows import MEASURES, row
from bench_table import table
from harness import CONDITIONS, ROOT, say
from machine import description, state, states_in, summary
from stamps import code_hash, rows_hash

OVERRUN = 3.0  # a part is ended after this many times what it takes on a quiet machine


@dataclass(frozen=True)
class Setting:
    """What a part is measured with."""

    data: Path
    quick: bool = False

    def stamp(self, part: Part) -> dict[str, Any]:
        """What a result is of: a part's words, and the hashes of the code that runs and of the rows."""
        words = list(part.quick if self.quick else part.words)
        return {"words": words, "code": code_hash(), "data": rows_hash(self.data) if part.data else ""}


def measured(part: Part, setting: Setting, work: Path) -> dict[str, Any]:
    """Runs a part: its result, the seconds and the machine's state around it, or why there is no result."""
    data, quick, stamp = setting.data, setting.quick, setting.stamp(part)
    out, log = kept_file(part, setting, work), work / f"{part.name}.log"
    partial = out.with_suffix(".part.json")
    before, started = state(), time.monotonic()
    say(f"{part.name}: {part.shown()}, about {part.minutes:g} minutes")
    limit_s = part.minutes * 60 * OVERRUN
    status = ended(part.command(data, partial, quick=quick), log, limit_s)
    if status is None:
        return {"error": f"no end after {limit_s / 60:.0f} minutes"}
    if status or not partial.is_file():
        said = log.read_text(encoding="utf-8", errors="replace").strip()
        return {"error": f"status {status}: {said.splitlines()[-1] if said else 'no output'}"}
    around = {"before": before, "after": state()}
    result = json.loads(partial.read_text(encoding="utf-8"))
    seconds, today = time.monotonic() - started, datetime.date.today().isoformat()
    found = {"stamp": stamp, "measured": today, "seconds": seconds, "machine": around, "result": result}
    partial.with_suffix(".kept").write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    partial.with_suffix(".kept").replace(out)  # complete or absent
    partial.unlink()
    return found


def ended(command: Sequence[str], log: Path, limit_s: float) -> int | None:
    """The exit status of a command; None where it was ended at the limit. Nothing that it started is left behind."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=os.environ | CONDITIONS, cwd=ROOT, stdout=file, stderr=file, start_new_session=True
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def kept_file(part: Part, setting: Setting, work: Path) -> Path:
    """Where a part's result is; trials are beside it."""
    return work / f"{'quick-' if setting.quick else ''}{part.name}.json"


def kept_result(path: Path, stamp: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result that an earlier run left, if it is of the same words, code and rows."""
    if not path.is_file():
        return None
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    others = [key for key, value in stamp.items() if kept.get("stamp", {}).get(key) != value]
    if others:
        say(f"{path} is of other {' and '.join(others)}: measured again")
        return None
    say(f"{path} is kept")
    return kept


def run_parts(parts: Sequence[Part], setting: Setting, work: Path, minutes: float) -> dict[str, dict[str, Any]]:
    """Every part's result, or the reason that there is none."""
    found: dict[str, dict[str, Any]] = {}
    ends = time.monotonic() + 60 * minutes
    for part in parts:
        kept = kept_result(kept_file(part, setting, work), setting.stamp(part))
        reason = part.needs()
        if kept is not None:
            found[part.name] = kept
        elif reason:
            found[part.name] = {"error": reason}
        elif not setting.quick and time.monotonic() + 60 * part.minutes > ends:
            found[part.name] = {"error": f"no time was left: takes {part.minutes:g} minutes, `{part.shown()}`"}
        else:
            found[part.name] = measured(part, setting, work)
        if "error" in found[part.name]:
            say(f"{part.name}: {found[part.name]['error']}")
    return found


def content(found: Mapping[str, Mapping[str, Any]], *, quick: bool, embedded: bool) -> dict[str, Any]:
    """The benchmark as JSON: the machine, versions, a row for each measure, and the parts without their rounds."""
    versions = versions_of(found)
    states = states_in(list(found.values()))
    parts = {
        name: {
            **({"error": part["error"]} if "error" in part else _when(part)),
            "machine": summary(states_in(part)),
        }
        for name, part in found.items()
    }
    return {
        "measured": min((part["measured"] for part in found.values() if "error" not in part), default=""),
        "quick": quick,
        "data": "embedded" if embedded else "given",
        "machine": {**description(), **summary(states)},
        "versions": versions,
        "rows": [row(measure, found, versions) for measure in MEASURES],
        "parts": parts,
    }


def _when(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"measured": part["measured"], "minutes": part["seconds"] / 60}


def versions_of(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Package versions by side; `rlhf` is this project's own environment."""
    from environments import versions

    sides = {"rlhf": versions(Path(sys.executable))}
    for name, part in found.items():
        said = part.get("result", {}).get("versions", {})
        sides |= said if all(isinstance(each, dict) for each in said.values()) else {name: said}
    return sides


def main() -> int:
    options = parse()
    work = (options.work or options.out.with_suffix(".work")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    if options.data is None:
        from embedded_rows import write_rows

        data = write_rows(work / "rows")
    else:
        data = options.data.resolve()
    chosen = [part for part in PARTS if not options.only or part.name in options.only]
    found = run_parts(chosen, Setting(data, options.quick), work, options.minutes)
    result = content(found, quick=options.quick, embedded=options.data is None)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(table(result))
    print(f"written to {options.out} and {options.out.with_suffix('.md')}; results of the parts are kept in {work}")
    if options.fresh:
        shutil.rmtree(work)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to write; the table goes beside it as .md")
    parser.add_argument("--data", type=Path, help="folder with {sft,preference,ranking,prompts}_train.jsonl and _dev")
    parser.add_argument("--minutes", type=float, default=60.0, help="time for all parts (default: %(default)s)")
    names = ", ".join(part.name for part in PARTS)
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"parts to run, of {names}")
    parser.add_argument("--quick", action="store_true", help="one short round of each: tries the scripts")
    parser.add_argument("--work", type=Path, help="folder of finished parts, kept (default: beside --out)")
    parser.add_argument("--fresh", action="store_true", help="remove the finished parts at the end")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
