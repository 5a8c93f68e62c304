"""The three stages on a real pretrained model, from a GGUF file to a verdict: docs/case-study.md.

python benchmarks/case_study.py --gguf FILE --data DIR --out runs/gemma3-270m [--labels FILE]

Commands of `rlhf`, one after the other: the base, its demonstrations without long rows, SFT, then `rlhf arms` (a reward
model, a judge trained on other rankings, PPO, and the answers of both policies to held-out prompts), the reward model's
report card on held-out pairs, and answers to the prompts below. Interrupted, it goes on, with the same model and rows.
OUT/case-study.json holds time and peak memory beside the plan's, curves, results and these answers; no text of DIR.
--labels adds pairs of OUT/arms/label.jsonl that were read blind on the page of `rlhf data label`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from environments import versions
from stamps import files_hash, rows_hash

from rlhf.artifacts.files import read_json, write_json

RECIPE = "recipe:gemma3-270m"
EVERY_S = 0.5
MAX_TOKENS = 160  # of prompt and answer in stage 1
CURVES = {
    "sft": ("loss", "eval/loss"),
    "reward": ("loss", "reward_model/accuracy"),
    "judge": ("loss", "reward_model/accuracy"),
    "ppo": ("objective/reward", "objective/kl", "rollout/eos_rate", "rollout/response_tokens", "policy/entropy"),
}
OWN_PROMPTS = (
    "오늘 회사에서 실수를 해서 하루 종일 기분이 안 좋아.",
    "주말에 비가 온다는데 집에서 뭘 하면 좋을까?",
    "요즘 잠이 잘 안 와서 걱정이야.",
    "친구 생일 선물로 뭐가 좋을까?",
    "나 드디어 운전면허 시험에 합격했어!",
    "강아지를 처음 키우는데 뭘 준비해야 해?",
)


@dataclass(frozen=True, slots=True)
class Study:
    """Folders and files of one study."""

    gguf: Path
    data: Path
    out: Path
    labels: Path | None

    @property
    def results(self) -> Path:
        return self.out / "case-study.json"

    @property
    def own_prompts(self) -> Path:
        return self.out / "data" / "own_prompts.jsonl"

    def policies(self) -> dict[str, Path]:
        """The run folder of each policy."""
        return {"sft": self.out / "sft", "ppo": self.out / "arms" / "ppo"}

    def stages(self) -> dict[str, Path]:
        """The run folder of each stage."""
        return {"sft": self.out / "sft", **{name: self.out / "arms" / name for name in ("reward", "judge", "ppo")}}

    def answers(self, policy: str) -> Path:
        return self.out / "data" / f"own_answers_{policy}.jsonl"

    def commands(self) -> Iterator[tuple[str, list[str], Path]]:
        """Name, words of `rlhf`, and the file that is there once it has ended well."""
        base, sft, arms = self.out / "base", self.out / "sft", self.out / "arms"
        yield "base", ["base", "gguf", str(self.gguf), "--out", str(base)], base / "config.json"
        rows = {split: self.out / "data" / f"sft_{split}.jsonl" for split in ("train", "dev")}
        for split, kept in rows.items():
            words = ["--in", str(self.data / f"sft_{split}.jsonl"), "--out", str(kept)]
            words += ["--max-tokens", str(MAX_TOKENS), "--tokenizer", str(base)]
            yield f"filter_{split}", ["data", "filter", *words], kept
        words = ["--config", f"{RECIPE}/sft", "--resume", "auto", f"model.path={base}", f"run.dir={sft}"]
        words += [f"data.train=[{rows['train']}]", f"data.eval=[{rows['dev']}]"]
        yield "sft", ["train", "sft", *words], sft / "model" / "config.json"
        words = [f"sft={sft}/model", f"preferences.path={self.data}/preference_train.jsonl"]
        words += [f"prompts={self.data}/prompts_train.jsonl", f"held_out.prompts={self.data}/prompts_dev.jsonl"]
        yield "arms", ["arms", f"{RECIPE}/arms", *words, "--out", str(arms)], arms / "arms.json"
        words = ["--model", str(arms / "reward" / "model"), "--data", f"{self.data}/preference_dev.jsonl"]
        words += ["--dtype", "bfloat16"]
        card = self.out / "card"
        yield "card", ["evaluate", "reward", *words, "--out", str(card)], card / "report_card.json"
        for policy, folder in self.policies().items():
            words = ["--model", str(folder), "--prompts", str(self.own_prompts), "--out", str(self.answers(policy))]
            words += ["--k", "1", "--temperature", "0", "--max-new-tokens", "128"]
            yield f"answers_{policy}", ["data", "sample", *words], self.answers(policy)

    def is_done(self, name: str, made: Path) -> bool:
        """Whether a command has ended well; `rlhf arms` leaves a report when it is interrupted too."""
        if name != "arms" or not made.is_file():
            return made.is_file()
        report = read_json(self.out / "arms" / "report.json")
        return all(arm["status"] == "finished" and "reward" in arm for arm in report["arms"].values())

    def inputs(self) -> dict[str, str]:
        """Hashes of the model and of the rows."""
        return {"gguf": files_hash([self.gguf]), "data": rows_hash(self.data)}

    def labelled(self) -> list[str]:
        """The words of `rlhf arms` that add what people said; answers that were judged are not drawn again."""
        (words,) = (words for name, words, _ in self.commands() if name == "arms")
        return [*words, f"labels={self.labels}"]


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
    """Runs what is missing. Raises: CalledProcessError with the command that failed."""
    study.own_prompts.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in OWN_PROMPTS]
    study.own_prompts.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for name, words, made in study.commands():
        if study.is_done(name, made):
            sys.stderr.write(f"{name}: {made} is there and kept\n")
            continue
        command = [sys.executable, "-m", "rlhf", *words]
        sys.stderr.write(f"\n== {name} ==\nrlhf {' '.join(words)}\n")
        started = time.perf_counter()
        process = subprocess.Popen(command)
        try:
            with PeakMemory(psutil.Process(process.pid), known["peak_bytes"]):
                status = process.wait()
        finally:  # the time of an attempt that is interrupted counts too
            known["seconds"][name] = known["seconds"].get(name, 0.0) + time.perf_counter() - started
            write_json(study.results, known)
        if status:
            raise subprocess.CalledProcessError(status, command)
    if "part_seconds" not in known:  # before labels are added, which judges once more
        known["part_seconds"] = read_json(study.out / "arms" / "times.json")["seconds"]
        write_json(study.results, known)
    if study.labels:
        subprocess.run([sys.executable, "-m", "rlhf", *study.labelled()], check=True)


def curve(run_folder: Path, keys: Sequence[str]) -> dict[str, list[list[float]]]:
    """[step, value] of each metric that the run has."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {key: [[line["step"], line[key]] for line in lines if line.get(key) is not None] for key in keys}


def planned(name: str, folder: Path) -> dict[str, Any]:
    """What `rlhf plan --cpu` says of a stage, from the configuration that it ran with."""
    stage = "reward" if name == "judge" else name
    words = [sys.executable, "-m", "rlhf", "plan", str(folder / "config.yaml"), "--stage", stage, "--cpu", "--json"]
    found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return {"peak_bytes": found["peak"], "steps": found["effort"]["steps"], "largest_phase": found["largest_phase"]}


def answers(study: Study) -> list[dict[str, str]]:
    """The own prompts with the greedy answer of each policy."""
    drawn = {}
    for policy in study.policies():
        lines = study.answers(policy).read_text(encoding="utf-8").splitlines()
        drawn[policy] = [json.loads(line)["responses"][0] for line in lines]
    return [
        {"prompt": prompt, **{policy: texts[number] for policy, texts in drawn.items()}}
        for number, prompt in enumerate(OWN_PROMPTS)
    ]


def reading(labels: Path) -> dict[str, int]:
    """How many labelled pairs were better with PPO, equal, and better with SFT."""
    counts = {"count": 0, "better": 0, "equal": 0, "worse": 0}
    for line in labels.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rank = dict(zip(row["models"], row["ranks"], strict=True))
        gained = rank["sft"] - rank["ppo"]
        counts["better" if gained > 0 else "worse" if gained < 0 else "equal"] += 1
        counts["count"] += 1
    return counts


def machine() -> dict[str, Any]:
    """Processors, memory, and whether bfloat16 is multiplied in hardware."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "architecture": platform.machine(),
        "bfloat16": "avx512_bf16" in flags or "amx_bf16" in flags,
    }


def collected(study: Study, known: dict[str, Any]) -> dict[str, Any]:
    """The results, without a text of the data."""
    report = read_json(study.out / "arms" / "report.json")
    return {
        **known,
        "measured": known.get("measured") or datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(Path(sys.executable)),
        "curves": {name: curve(folder, CURVES[name]) for name, folder in study.stages().items()},
        "planned": {name: planned(name, folder) for name, folder in study.stages().items()},
        "arms": report,
        "card": read_json(study.out / "card" / "report_card.json"),
        "answers": answers(study),
        "reading": reading(study.labels) if study.labels else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gguf", type=Path, required=True, help="the pretrained model, such as Gemma 3 270M")
    parser.add_argument("--data", type=Path, required=True, help="folder of {sft,preference,prompts}_{train,dev}.jsonl")
    parser.add_argument("--out", type=Path, default=Path("runs/gemma3-270m"), help="folder of the runs")
    parser.add_argument("--labels", type=Path, help="pairs of OUT/arms/label.jsonl, labelled")
    options = parser.parse_args()
    labels = options.labels.resolve() if options.labels else None
    study = Study(options.gguf.resolve(), options.data.resolve(), options.out.resolve(), labels)
    study.out.mkdir(parents=True, exist_ok=True)
    known = read_json(study.results) if study.results.is_file() else {"seconds": {}, "peak_bytes": {}}
    if known.setdefault("inputs", study.inputs()) != study.inputs():
        raise SystemExit(f"{study.out} holds a study of another model or other rows; name another --out")
    run(study, known)
    write_json(study.results, collected(study, known))
    sys.stderr.write(f"{study.results}\n")


if __name__ == "__main__":
    main()
