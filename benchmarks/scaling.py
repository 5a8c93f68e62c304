"""How time and memory grow: tokens per row, K, model size, ranks, prompts per iteration, decode slots, rows of data.

python benchmarks/scaling.py --out scaling.json [--only tokens,slots] [--quick]

Each point is a process of its own: steps of the stages on random GPT-NeoX models in float32, and `rlhf data` commands
on files of so many rows. Time is the median of three steps after one that is not counted; memory is the peak of the
process above its start, of `rlhf data` the peak of the process. A curve is fitted as y = a x^b on logarithms, with the
95 % interval of b. What that means for large models on A100s is beside what `rlhf plan` says: nothing of it is
measured. Finished points stay in the work folder, so an interrupted run goes on. About 25 minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpu_setting import Setting
from harness import CONDITIONS, ROOT, SIDES, drop_scratch, free_port, say, scratch, write
from machine import description, state, states_in, summary
from scaling_fit import power_fit
from scaling_outlook import outlook
from scaling_points import Curve, DataCurve, Point, curves, data_curves
from stamps import code_hash

MIB = 2**20


@dataclass(frozen=True)
class Bench:
    """Finished points, a file each, in one folder."""

    work: Path
    quick: bool

    def measure(self, curve: Curve, point: Point) -> dict[str, Any]:
        """Seconds of a step and peak memory of a rank."""
        setting = Setting("cpu", "float32", point.sizes, str(self.work / "model"))
        setting.prepare()
        described, result = self.work / "setting.json", self.work / "point.json"
        setting.write(described)
        launcher: list[str] = []
        if point.ranks > 1:
            launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(point.ranks)]
            launcher += ["--master_port", str(free_port())]
        command = [str(SIDES / "gpu_part.py"), point.part, str(described), str(result)]
        self._run([sys.executable, *launcher, *command])
        figures = json.loads(result.read_text(encoding="utf-8"))
        if point.part == "decode":
            figures["decode_step_s"] = figures["slots"][str(point.sizes.slots[0])]["step_ms"] / 1000
        return {"x": point.x, "time_s": figures[curve.time], "memory_mib": figures["peak_bytes"] / MIB}

    def measure_data(self, curve: DataCurve, rows: int) -> dict[str, Any]:
        """Seconds and peak memory of a command on a file of so many rows."""
        source, result = self._file(rows), self.work / "data.json"
        words = curve.words(source, self.work)
        self._run([sys.executable, str(SIDES / "timed_command.py"), str(result), "data", *words])
        found = json.loads(result.read_text(encoding="utf-8"))
        return {"x": rows, **found}

    def _file(self, rows: int) -> Path:
        path = self.work / f"rows-{rows}.jsonl"
        if not path.is_file():
            from scaling_rows import write_rows

            write_rows(path, rows)
        return path

    def _run(self, command: Sequence[str]) -> None:
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, **CONDITIONS, "DS_ACCELERATOR": "cpu", "PYTHONPATH": paths}
        log = self.work / "points.log"
        with log.open("ab") as file:
            done = subprocess.run(list(command), env=environment, cwd=ROOT, stdout=file, stderr=file, check=False)
        if done.returncode:
            sys.stderr.write(log.read_text(encoding="utf-8", errors="replace")[-3000:])
            raise SystemExit(f"a point ended with status {done.returncode}; see {log}")

    def kept(self, name: str, x: float, take: Any) -> dict[str, Any]:
        """A point from its file, or, where that is missing or of other code, measured and written to it."""
        file = self.work / f"{'quick-' if self.quick else ''}{name}-{x:g}.json"
        if file.is_file():
            point: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if point.get("code") == code_hash():
                return point
        before = state()
        found = {**take(), "code": code_hash(), "machine": {"before": before, "after": state()}}
        partial = file.with_suffix(".part")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(file)  # complete or absent
        say(f"{name} {x:g}: {found['time_s']:.4g} s, {found['memory_mib']:.0f} MiB")
        return found


def fitted(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The points with the fits of both figures."""
    x = [point["x"] for point in points]
    fits = {name: asdict(power_fit(x, [point[name] for point in points])) for name in ("time_s", "memory_mib")}
    shown = [{name: point[name] for name in ("x", "time_s", "memory_mib")} for point in points]
    return {"points": shown, "fits": fits, "machine": summary(states_in(list(points)))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--only", type=lambda text: text.split(","), help="curves to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="two tiny points of each: tries the script")
    parser.add_argument("--work", type=Path, help="folder of finished points, kept (default: removed at the end)")
    options = parser.parse_args()
    work = scratch(options)
    bench, found = Bench(work, options.quick), {}
    for curve in curves(quick=options.quick):
        if not options.only or curve.name in options.only:
            taken = [bench.kept(curve.name, p.x, lambda p=p, c=curve: bench.measure(c, p)) for p in curve.points]
            found[curve.name] = fitted(taken)
    for command in data_curves(quick=options.quick):
        if not options.only or command.name in options.only:
            taken = [
                bench.kept(command.name, rows, lambda r=rows, c=command: bench.measure_data(c, r))
                for rows in command.rows
            ]
            found[command.name] = fitted(taken)
    write(
        options.out,
        {
            "measured": datetime.date.today().isoformat(),
            "quick": options.quick,
            "machine": description(),
            "versions": {name: version(name) for name in ("torch", "transformers", "deepspeed")},
            "curves": found,
            "outlook": outlook(found),
        },
    )
    drop_scratch(options, work)


if __name__ == "__main__":
    main()
