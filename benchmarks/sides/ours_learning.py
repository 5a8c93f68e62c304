"""Stage 3 several times, without the launcher: ours_learning.py SPEC.json

{"tasks": folder of the reward functions, "words": [...], "runs": [{"seed", "lr", "result", "dir"}]}
A run is a fork of this process, which pays for the imports once: DeepSpeed joins a process group only once a process.
"""

import json
import multiprocessing
import shutil
import sys
from pathlib import Path
from typing import Any

import deepspeed  # noqa: F401 - an import, to be paid for once

from rlhf.train.ppo import train_ppo
from rlhf.train.run.run import launch

KEPT = ("objective/reward", "objective/kl", "rollout/eos_rate", "rollout/response_tokens")  # kept without the group
WHERE_LOGGED = ("rollout/accepted_share",)  # 0 in the iterations that do not log it


def one(words: list[str], run: dict[str, Any]) -> None:
    folder = Path(run["dir"])
    shutil.rmtree(folder, ignore_errors=True)
    own = [f"run.dir={folder}", f"run.seed={run['seed']}", f"train.lr={run['lr']}", f"critic.lr={run['lr']}"]
    if status := launch("ppo", [*words, *own], train_ppo):
        sys.exit(status)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curves = {name.partition("/")[2]: [line[name] for line in lines] for name in KEPT}
    curves |= {name.partition("/")[2]: [line.get(name, 0.0) for line in lines] for name in WHERE_LOGGED}
    Path(run["result"]).write_text(json.dumps({**curves, "seconds": lines[-1]["time/wall_s"]}))
    shutil.rmtree(folder)


def main() -> int:
    spec = json.loads(Path(sys.argv[1]).read_text())
    sys.path.insert(0, spec["tasks"])
    for run in spec["runs"]:
        child = multiprocessing.get_context("fork").Process(target=one, args=(spec["words"], run))
        child.start()
        child.join()
        if child.exitcode:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
