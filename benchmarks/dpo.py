"""DPO against TRL's DPOTrainer: pairs a second, with the reference's log-probabilities computed before on both sides.

python benchmarks/dpo.py --data DIR --out dpo.json [--rounds 5]

Both sides train the same pairs (ids of at most 256 tokens) from the same GPT-NeoX of 7.3 M parameters in float32, 8
pairs a step; TRL as it comes and with pairs grouped by length. Its padding-free mode is switched off by TRL itself.
Speed is pairs over the wall time from the beginning of training to the end of the last step, after the reference. Ours
is `scripts/dpo.py` under the `deepspeed` launcher at ZeRO 0 with its metrics on.
"""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import TRL, versions
from harness import (
    ROOT,
    SIDES,
    Side,
    alternate,
    arguments,
    deepspeed,
    drop_scratch,
    fastest,
    ratio,
    run,
    scratch,
    write,
)
from material import TINY, Base, make_base, rankings, write_rankings

BATCH, LR = 8, 1e-4
MODES = ("padded", "grouped")


@dataclass
class Bench:
    """One comparison in a scratch folder."""

    work: Path
    data: Path
    base: Base
    num_rows: int
    python: Path

    def __post_init__(self) -> None:
        self.log = self.work / "sides.log"
        records, encoded = rankings(self.data / "preference_train.jsonl", self.base, self.num_rows)
        self.train = write_rankings(self.work / "train.jsonl", records)
        columns: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
        for item in encoded:
            better, worse = sorted((0, 1), key=lambda answer, item=item: item.ranks[answer])
            columns["prompt_ids"].append(item.prompt.tolist())
            columns["chosen_ids"].append(item.answers[better].tolist())
            columns["rejected_ids"].append(item.answers[worse].tolist())
        self.rows = self.work / "rows.json"
        self.rows.write_text(json.dumps(columns))

    def ours(self, number: int) -> dict[str, Any]:
        """The shipped script, from its metrics."""
        folder = self.work / "ours"
        shutil.rmtree(folder, ignore_errors=True)
        run(deepspeed(ROOT / "scripts" / "dpo.py", *self.words(folder)), self.log)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        seconds = lines[-1]["time/wall_s"]
        return {
            "pairs_per_s": self.num_rows / seconds,
            "seconds": seconds,
            "num_steps": len(lines),
            "train_loss": statistics.mean(line["loss"] for line in lines),
        }

    def words(self, folder: Path) -> list[str]:
        """The shipped script's arguments."""
        return [
            "--config", str(ROOT / "configs" / "demo" / "dpo.yaml"), f"run.dir={folder}",
            f"model.path={self.base.path}", "data.template=kullm", f"data.train={self.train}", "data.eval=[]",
            "data.max_length=256", f"train.batch_size={BATCH}", "train.micro_tokens=4096", "train.epochs=1",
            f"train.lr={LR}", "train.schedule=constant", "train.warmup_steps=0", "train.weight_decay=0",
            "dpo.beta=0.1", "dpo.sft_weight=0", "dpo.kl_prompts=0", "log.samples_every_steps=null",
            "checkpoint.every_steps=100000",
        ]  # fmt: skip

    def trl(self, mode: str) -> Side:
        """TRL in one of its modes."""

        def measure(number: int) -> dict[str, Any]:
            result = self.work / f"trl-{mode}.json"
            words = ["--base", str(self.base.path), "--rows", str(self.rows), "--result", str(result), "--mode", mode]
            run([str(self.python), str(SIDES / "trl_dpo.py"), *words, "--batch", str(BATCH), "--lr", str(LR)], self.log)
            found = json.loads(result.read_text())
            seconds = found["seconds"][-1] - found["seconds"][0]
            count = sum(each["pairs"] for each in found["amounts"][: len(found["seconds"]) - 1])
            return {
                "pairs_per_s": count / seconds,
                "seconds": seconds,
                "num_steps": len(found["seconds"]) - 1,
                "train_loss": found["train_loss"],
            }

        return Side(f"trl_{mode}", measure)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=160, help="pairs a round (default: %(default)s)")
    options = parser.parse_args()
    work = scratch(options)
    python = TRL.python()
    base = make_base(options.data, work / "base", TINY)
    bench = Bench(work, options.data.resolve(), base, options.rows, python)
    rounds = alternate([Side("ours", bench.ours), *map(bench.trl, MODES)], options.rounds)
    best = fastest(rounds, [f"trl_{mode}" for mode in MODES], "pairs_per_s")
    write(
        options.out,
        {
            "dpo_pairs_ratio": ratio(rounds, "ours", best, "pairs_per_s"),
            "best_mode": best,
            "train_loss": {
                side: statistics.mean(each[side]["train_loss"] for each in rounds)
                for side in ("ours", *(f"trl_{mode}" for mode in MODES))
            },
            "rows": options.rows,
            "versions": versions(python),
            "rounds": rounds,
        },
    )
    drop_scratch(options, work)


if __name__ == "__main__":
    main()
