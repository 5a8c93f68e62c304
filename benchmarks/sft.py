"""Stage 1 against TRL's SFTTrainer, and against the matrix products that no trainer can do without.

python benchmarks/sft.py --data DIR --out sft.json [--rounds 5]

Both sides train the same rows (ids of at most 256 tokens, the loss on answers) of the same GPT-NeoX of 7.3 M
parameters in float32, 8 rows a step; TRL also in its packed mode with an equal token budget. A side's speed is real
tokens over the wall time from the beginning of training to the end of the last step. Ours is `scripts/step1_sft.py`
under the `deepspeed` launcher at ZeRO 0 with its metrics on.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Sequence
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
    memory_mib,
    ratio,
    run,
    say,
    scratch,
    write,
)
from material import LARGER, TINY, Base, demonstrations, make_base, write_demonstrations

from rlhf.evaluate.answers.policy import answer_logprobs
from rlhf.models.loading import load_causal_lm

BATCH, LR, HELD_OUT = 8, 1e-3, 100
MODES = ("padded", "grouped", "packed")


@dataclass
class Bench:
    """One comparison in a scratch folder."""

    work: Path
    data: Path
    base: Base
    num_rows: int
    python: Path
    modes: Sequence[str] = MODES

    def __post_init__(self) -> None:
        self.log = self.work / "sides.log"
        records, encoded = demonstrations(self.data / "sft_train.jsonl", self.base, self.num_rows)
        self.train = write_demonstrations(self.work / "train.jsonl", records)
        self.rows = self.work / "rows.json"
        rows = {"ids": [item.ids.tolist() for item in encoded], "mask": [item.answer_mask.tolist() for item in encoded]}
        self.rows.write_text(json.dumps(rows))
        self.tokens_a_row = sum(map(len, encoded)) / len(encoded)

    def ours(self, number: int) -> dict[str, Any]:
        """The shipped script, from its metrics."""
        folder = self.work / "ours"
        shutil.rmtree(folder, ignore_errors=True)
        run(deepspeed(ROOT / "scripts" / "step1_sft.py", *self.words(folder)), self.log)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        seconds = lines[-1]["time/wall_s"]
        steps = [[int(line["tokens"]), int(line["batch/answer_tokens"])] for line in lines]
        return {
            "tokens_per_s": sum(tokens for tokens, _ in steps) / seconds,
            "seconds": seconds,
            "steps": steps,
            "train_loss": statistics.mean(line["loss"] for line in lines[-10:]),
        }

    def words(self, folder: Path) -> list[str]:
        """The shipped script's arguments."""
        return [
            "--config", str(ROOT / "configs" / "demo" / "sft.yaml"), f"run.dir={folder}",
            f"model.path={self.base.path}", f"data.train={self.train}", "data.eval=[]", "data.template=kullm",
            "data.max_length=256",
            f"train.batch_size={BATCH}", "train.micro_tokens=4096", "train.epochs=1", f"train.lr={LR}",
            "train.schedule=constant", "train.warmup_steps=0", "train.weight_decay=0", "log.samples_every_steps=null",
            "checkpoint.every_steps=100000",
        ]  # fmt: skip

    def trl(self, mode: str, *, batch: int = BATCH) -> Side:
        """TRL in one of its modes."""

        def measure(number: int) -> dict[str, Any]:
            result = self.work / f"trl-{mode}.json"
            run(self.trl_command(mode, batch, result, "--save", str(self.work / f"trl-{mode}")), self.log)
            found = json.loads(result.read_text())
            seconds = found["seconds"][-1] - found["seconds"][0]
            tokens = sum(each["tokens"] for each in found["amounts"][: len(found["seconds"]) - 1])
            return {"tokens_per_s": tokens / seconds, "seconds": seconds, "num_steps": len(found["seconds"]) - 1}

        return Side(f"trl_{mode}", measure)

    def trl_command(self, mode: str, batch: int, result: Path, *more: str) -> list[str]:
        words = ["--base", str(self.base.path), "--rows", str(self.rows), "--result", str(result), "--mode", mode]
        return [str(self.python), str(SIDES / "trl_sft.py"), *words, "--batch", str(batch), "--lr", str(LR), *more]

    def floor(self, number: int) -> dict[str, Any]:
        """The matrix products of the steps our side just took."""
        lines = [json.loads(line) for line in (self.work / "ours" / "metrics.jsonl").read_text().splitlines()]
        steps = [[int(line["tokens"]), int(line["batch/answer_tokens"])] for line in lines]
        size = self.base.size
        shape = {"hidden": size.hidden, "layers": size.layers, "vocabulary": self.base.vocabulary, "steps": steps}
        source, result = self.work / "shape.json", self.work / "floor.json"
        source.write_text(json.dumps(shape))
        run([sys.executable, str(SIDES / "floor.py"), str(source), str(result)], self.log)
        return json.loads(result.read_text())

    def ours_and_floor(self, number: int) -> dict[str, Any]:
        """One after the other, so that both meet the same machine."""
        ours, floor = self.ours(number), self.floor(number)
        ours.pop("steps")
        return {**ours, "floor_seconds": floor["seconds"], "floor_share": floor["seconds"] / ours["seconds"]}

    def losses(self) -> dict[str, float]:
        """Held-out loss of the last round's models, by one and the same code; nats an answer token."""
        _, held_out = demonstrations(self.data / "sft_dev.jsonl", self.base, HELD_OUT)
        found = {}
        for name in ("ours/model", *(f"trl-{mode}" for mode in self.modes)):
            policy = load_causal_lm(str(self.work / name))
            split = [
                (item.ids[:start], item.ids[start:]) for item in held_out if (start := int(item.answer_mask.argmax()))
            ]
            total = sum(answer_logprobs(policy, split, temperature=1.0))
            found[name.partition("/")[0].replace("-", "_")] = -total / sum(len(answer) for _, answer in split)
        return found


def memory(bench: Bench) -> dict[str, float]:
    """Peak memory above the imports of both sides, in MiB."""
    result, folder = bench.work / "memory.json", bench.work / "memory"
    shutil.rmtree(folder, ignore_errors=True)
    command = deepspeed(SIDES / "ours_memory.py", str(result), "sft", *bench.words(folder))
    ours = memory_mib(command, result, bench.log)
    theirs = {
        mode: memory_mib(bench.trl_command(mode, BATCH, result, "--save", str(bench.work / "saved")), result, bench.log)
        for mode in ("padded", "grouped")
    }
    return {"ours": ours, **{f"trl_{mode}": value for mode, value in theirs.items()}}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=320, help="training rows a round (default: %(default)s)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="TRL's modes (default: all)")
    options = parser.parse_args()
    work = scratch(options)
    python = TRL.python()
    base, modes = make_base(options.data, work / "base", TINY), options.modes
    bench = Bench(work, options.data.resolve(), base, options.rows, python, modes)
    batch = {"packed": max(1, round(BATCH * bench.tokens_a_row / 256))}
    sides = [Side("ours", bench.ours_and_floor), *(bench.trl(mode, batch=batch.get(mode, BATCH)) for mode in modes)]
    rounds = alternate(sides, options.rounds)
    say("memory, 34 M parameters")
    large = work / "large"
    large.mkdir(exist_ok=True)
    peaks = memory(Bench(large, options.data.resolve(), make_base(options.data, large / "base", LARGER), 64, python))
    best = fastest(rounds, [f"trl_{mode}" for mode in modes], "tokens_per_s")
    write(
        options.out,
        {
            "sft_tokens_ratio": ratio(rounds, "ours", best, "tokens_per_s"),
            **{f"sft_{mode}_ratio": ratio(rounds, "ours", f"trl_{mode}", "tokens_per_s") for mode in modes},
            "sft_floor_share": statistics.median(each["ours"]["floor_share"] for each in rounds),
            "memory_ratio": peaks["ours"] / min(peaks["trl_padded"], peaks["trl_grouped"]),
            "best_mode": best,
            "held_out_loss": bench.losses(),
            "memory_mib": peaks,
            "rows": options.rows,
            "tokens_a_row": bench.tokens_a_row,
            "versions": versions(python),
            "rounds": rounds,
        },
    )
    drop_scratch(options, work)


if __name__ == "__main__":
    main()
