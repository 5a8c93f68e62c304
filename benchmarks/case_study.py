"""The three stages on a real pretrained model, from a GGUF file to a verdict: docs/case-study.md.

python benchmarks/case_study.py --gguf FILE --data DIR --out runs/gemma3-270m

Commands of `rlhf`, one after the other: base, SFT, then `rlhf arms` (reward model, a judge trained on other rankings, PPO,
both answering held-out prompts), and the reward model's report card on held-out pairs. Interrupted, it goes on. OUT/case-study.json
holds time, peak memory beside the plan's, curves and results; no text of DIR.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rlhf.artifacts.files import read_json, write_json

RECIPE = "recipe:gemma3-270m"
EVERY_S = 0.5
MAX_TOKENS = 160  # of prompt and answer in stage 1
MIB = 2**20
CURVES = {
    "sft": ("loss", "eval/loss"),
    "reward": ("loss", "reward_model/accuracy", "eval/accuracy"),
    "judge": ("loss", "reward_model/accuracy", "eval/accuracy"),
    "ppo": ("objective/reward", "objective/kl", "rollout/eos_rate", "text/polite_share", "policy/entropy"),
}


@dataclass(frozen=True, slots=True)
class Study:
    """Folders of one study."""

    gguf: Path
    data: Path
    out: Path

    @property
    def results(self) -> Path:
        return self.out / "case-study.json"

    def commands(self) -> Iterator[tuple[str, list[str], Path]]:
        """Name, words of `rlhf`, and the file that is there once it has ended well."""
        base, sft, arms = self.out / "base", self.out / "sft", self.out / "arms"
        yield "base", ["base", "gguf", str(self.gguf), "--out", str(base)], base / "config.json"
        for split in ("train", "dev"):
            source, kept = self.data / f"sft_{split}.jsonl", self.out / "data" / f"sft_{split}.jsonl"
            words = ["--in", str(source), "--out", str(kept), "--max-tokens", str(MAX_TOKENS), "--tokenizer", str(base)]
            yield f"filter_{split}", ["data", "filter", *words], kept
        rows = [
            f"data.{key}=[{self.out}/data/sft_{split}.jsonl]" for key, split in (("train", "train"), ("eval", "dev"))
        ]
        words = [
            "train",
            "sft",
            "--config",
            f"{RECIPE}/sft",
            "--resume",
            "auto",
            f"model.path={base}",
            f"run.dir={sft}",
        ]
        yield "sft", [*words, *rows], sft / "model" / "config.json"
        compared = [
            f"sft={sft}/model",
            f"preferences.path={self.data}/preference_train.jsonl",
            f"prompts={self.data}/prompts_train.jsonl",
            f"held_out.prompts={self.data}/prompts_dev.jsonl",
        ]
        yield "arms", ["arms", f"{RECIPE}/arms", *compared, "--out", str(arms)], arms / "arms.json"
        card = ["--model", str(arms / "reward" / "model"), "--data", f"{self.data}/preference_dev.jsonl"]
        yield "card", ["evaluate", "reward", *card, "--out", str(self.out / "card")], self.out / "card" / "report.json"

    def stages(self) -> dict[str, Path]:
        """Run folder of each stage."""
        return {"sft": self.out / "sft", **{name: self.out / "arms" / name for name in ("reward", "judge", "ppo")}}


class PeakMemory:
    """The largest resident size of each stage's own process under a command, while it runs."""

    def __init__(self, process: psutil.Process, peaks: dict[str, int]) -> None:
        self._process, self._peaks, self._ended = process, peaks, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY_S):
            try:
                for each in (self._process, *self._process.children(recursive=True)):
                    self._note(each)
            except psutil.NoSuchProcess:
                continue

    def _note(self, process: psutil.Process) -> None:
        try:
            words, size = process.cmdline(), process.memory_info().rss
        except psutil.Error:
            return
        name = next((Path(word.removeprefix("run.dir=")).name for word in words if word.startswith("run.dir=")), "")
        if name:
            self._peaks[name] = max(self._peaks.get(name, 0), size)


def run(study: Study, known: dict[str, Any]) -> None:
    """Runs what is missing. Raises CalledProcessError with the command that failed."""
    for name, words, made in study.commands():
        if made.is_file():
            sys.stderr.write(f"{name}: {made} is there and kept\n")
            continue
        command = [sys.executable, "-m", "rlhf", *words]
        sys.stderr.write(f"\n== {name} ==\nrlhf {' '.join(words)}\n")
        started = time.perf_counter()
        process = subprocess.Popen(command)
        with PeakMemory(psutil.Process(process.pid), known["peak_bytes"]):
            status = process.wait()
        known["seconds"][name] = known["seconds"].get(name, 0.0) + time.perf_counter() - started
        known["commands"][name] = "rlhf " + " ".join(words)
        write_json(study.results, known)
        if status:
            raise subprocess.CalledProcessError(status, command)


def curve(run_folder: Path, keys: Sequence[str]) -> dict[str, list[list[float]]]:
    """[step, value] of each metric that the run has."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {key: [[line["step"], line[key]] for line in lines if key in line] for key in keys}


def planned(config: Path) -> dict[str, Any]:
    """What `rlhf plan --cpu` says of a stage, from the configuration that it ran with."""
    words = [sys.executable, "-m", "rlhf", "plan", str(config), "--cpu", "--json"]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def collected(study: Study, known: dict[str, Any]) -> dict[str, Any]:
    """The results, without a text of the data."""
    arms = read_json(study.out / "arms" / "arms.json")
    return {
        **known,
        "curves": {name: curve(folder, CURVES[name]) for name, folder in study.stages().items()},
        "planned": {name: planned(folder / "config.yaml") for name, folder in study.stages().items()},
        "arms": arms,
        "card": read_json(study.out / "card" / "report.json"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gguf", type=Path, required=True, help="the pretrained model, such as Gemma 3 270M")
    parser.add_argument("--data", type=Path, required=True, help="folder of {sft,preference,prompts}_{train,dev}.jsonl")
    parser.add_argument("--out", type=Path, default=Path("runs/gemma3-270m"), help="folder of the runs")
    options = parser.parse_args()
    study = Study(options.gguf.resolve(), options.data.resolve(), options.out.resolve())
    study.out.mkdir(parents=True, exist_ok=True)
    known = read_json(study.results) if study.results.is_file() else {"seconds": {}, "peak_bytes": {}, "commands": {}}
    run(study, known)
    write_json(study.results, collected(study, known))
    sys.stderr.write(f"{study.results}\n")


if __name__ == "__main__":
    main()
