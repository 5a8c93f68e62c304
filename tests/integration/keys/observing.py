"""What a stage with a given configuration does, as values that can be compared: one short run in this process.

Run as `python -m tests.integration.keys.observing PLAN OUT`: PLAN is a JSON list of [stage, words], OUT receives one
observation for each. A run is a whole stage on a tiny model.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

import rlhf.train.dpo
import rlhf.train.ppo
import rlhf.train.reward
import rlhf.train.sft
from rlhf.train.run.run import launch
from tests.support.scoring import Service, scoring_service

TRAIN = {
    "sft": rlhf.train.sft.train_sft,
    "reward": rlhf.train.reward.train_reward,
    "ppo": rlhf.train.ppo.train_ppo,
    "dpo": rlhf.train.dpo.train_dpo,
}
Observation = dict[str, Any]
# Times, rates and the hidden names of files in writing differ from run to run.
_CLOCK = re.compile(r"\w+_per_s \S+|about \S+ s left|\S+ GiB free|step \d+/\d+.*")


def observe(stage: str, words: list[str], service: Service) -> Observation:
    """Everything a run leaves and says, without what a clock decides and without the configuration itself."""
    calls = [0]

    def count(module: nn.Module, *_: Any) -> None:
        calls[0] += isinstance(module, nn.Linear)

    folder = Path(tempfile.mkdtemp(prefix="key-"))
    told = io.StringIO()
    service.asked.clear()
    words = [word.replace("{service}", service.url) for word in words]
    if not any(word.startswith("run.dir=") for word in words):
        words.append(f"run.dir={folder}/run")
    hook = nn.modules.module.register_module_forward_hook(count)
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            try:
                status: Any = launch(stage, words, TRAIN[stage])
            except Exception as error:  # noqa: BLE001 - how a run dies is part of what is observed
                status = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        text = _CLOCK.sub("", told.getvalue()).replace(str(folder), "DIR")
        lines = sorted(line for line in text.splitlines() if "built successfully" not in line)
        return {
            "status": status,
            "text": lines,
            "linear_calls": calls[0],
            "requests": [len(asked["answers"]) for asked in service.asked],
            **_left_in(folder / "run"),
        }
    finally:
        hook.remove()
        shutil.rmtree(folder)


def _left_in(folder: Path) -> Observation:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = [re.sub(r"events\.out\S+", "events", name) for name in files]
    weights = hashlib.sha256()
    for path in sorted((folder / "model").glob("*.safetensors")):
        weights.update(path.read_bytes())
    kept = ("samples.jsonl", "tripwires.jsonl", "control.json", "state.json", "model/report_card.json")
    kept += (
        "model/config.json",
        "model/generation_config.json",
        "model/chat_template.jinja",
        "adapter/adapter_config.json",
    )
    manifest, rows = _json(folder / "manifest.json"), _lines(folder / "metrics.jsonl")
    return {
        "files": files,
        "weights": weights.hexdigest(),
        "metrics": [
            {name: value for name, value in row.items() if not name.endswith(("_s", "_per_s"))} for row in rows
        ],
        "names": [sorted(row) for row in rows],
        "data": manifest.get("data", []),
        "parents": sorted(manifest.get("parents", {}).items()),
        **{name: (folder / name).read_text() for name in kept if (folder / name).is_file()},
    }


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def main(plan: str, out: str) -> None:
    """Observes every entry of the plan; one process group serves them all."""
    entries = json.loads(Path(plan).read_text(encoding="utf-8"))
    close = torch.distributed.destroy_process_group
    with (
        scoring_service() as service,
        patch.object(torch.distributed, "destroy_process_group", lambda *_: None),
    ):
        observations = [observe(stage, words, service) for stage, words in entries]
    Path(out).write_text(json.dumps(observations, ensure_ascii=False), encoding="utf-8")
    close()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
