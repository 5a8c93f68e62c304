"""What one GPU does with a random GPT-NeoX of 1.3 B parameters: speed, MFU, and memory against `rlhf plan`.

python benchmarks/gpu.py --out gpu.json [--only sft,decode] [--part-s 150]
python benchmarks/gpu.py --device cpu --tiny --out gpu.json

Writes the figures as JSON and, beside it, as a Markdown table. Parts, each in a process of its own with a time limit,
so that one that fails leaves the others: steps of stage 1 by attention kernel, of stage 2, decode steps at 32, 64 and
128 slots, and an iteration of PPO by generation, scoring and update. Formula and peaks of MFU: flops.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flops import peak_flops
from gpu_setting import TINY, WHOLE, Setting
from gpu_table import table
from harness import CONDITIONS, ROOT, SIDES, say

PARTS = ("sft varlen", "sft sdpa", "reward", "decode", "ppo")


def main() -> int:
    options = parse()
    dtype = "float32" if options.device == "cpu" else "bfloat16"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rlhf-gpu-") as work:
        setting = Setting(options.device, dtype, TINY if options.tiny else WHOLE, str(Path(work) / "model"))
        setting.prepare()
        parts: dict[str, dict[str, Any]] = {}
        for name in PARTS:
            if not options.only or name.split()[0] in options.only:
                parts[name] = measure(name, setting, Path(work), options.part_s)
                say(f"{name}: {parts[name].get('error') or parts[name].get('skipped') or 'done'}")
                # After each part, so that a benchmark that is stopped leaves what it has.
                result = content(setting, parts, options.peak_tflops)
                options.out.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
                options.out.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(options.out.with_suffix(".md").read_text(encoding="utf-8"))
    return 1 if any("error" in part for part in parts.values()) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="speed, MFU and memory of one GPU")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write; the table goes beside it as .md")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few steps: tries the script")
    parser.add_argument("--only", type=lambda text: text.split(","), help="sft, reward, decode, ppo")
    parser.add_argument("--part-s", type=float, default=150.0, help="time limit of a part (default: %(default)s s)")
    parser.add_argument("--peak-tflops", type=float, help="peak of a card that the table of flops.py lacks")
    return parser.parse_args()


def measure(name: str, setting: Setting, work: Path, limit_s: float) -> dict[str, Any]:
    """The figures of a part, or why there are none."""
    described, result, log = work / "setting.json", work / f"{name}.json", work / f"{name}.log"
    setting.write(described)
    command = [sys.executable, str(SIDES / "gpu_part.py"), name, str(described), str(result)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | CONDITIONS | {"DS_ACCELERATOR": setting.device, "PYTHONPATH": paths}
    try:
        with log.open("wb") as file:
            done = subprocess.run(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=limit_s, check=False
            )
    except subprocess.TimeoutExpired:
        return {"error": f"no end after {limit_s:g} s"}
    if done.returncode or not result.is_file():
        said = log.read_text(encoding="utf-8", errors="replace").strip()
        sys.stderr.write(said[-3000:] + "\n")
        return {"error": f"status {done.returncode}: {said.splitlines()[-1] if said else 'no output'}"}
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def content(setting: Setting, parts: dict[str, dict[str, Any]], peak_tflops: float | None) -> dict[str, Any]:
    """The whole result; MFU is added where the card's peak is known."""
    card = next((part["card"] for part in parts.values() if "card" in part), "unknown")
    peak = peak_tflops * 1e12 if peak_tflops else peak_flops(card)
    for part in parts.values():
        if peak and "flops_per_s" in part:
            part["mfu"] = part["flops_per_s"] / peak
    return {
        "card": card,
        "peak_flops_per_s": peak,
        "driver": driver(),
        "versions": {name: version(name) for name in ("torch", "transformers", "deepspeed")},
        "dtype": setting.dtype,
        "sizes": {name: getattr(setting.sizes, name) for name in setting.sizes.__slots__},
        "parts": parts,
    }


def driver() -> str | None:
    """Version of the GPU's driver; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    return said[0] if said else None


if __name__ == "__main__":
    sys.exit(main())
