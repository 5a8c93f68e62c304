"""Stage 2 against TRL's RewardTrainer: pairs and rankings a second, memory, and what the models learnt.

python benchmarks/reward.py --data DIR --out reward.json [--rounds 5]

Both sides train the same pairs (ids of at most 256 tokens) from the same GPT-NeoX of 7.3 M parameters in float32,
8 pairs a step; TRL as it comes and with pairs grouped by length, its fastest. Rankings of six answers are given to
TRL as their pairs. Speed is work over the wall time from the beginning of training to the end of the last step. Ours is
`scripts/step2_reward.py` under the `deepspeed` launcher at ZeRO 0 with its metrics on.
"""

from __future__ import annotations

import json
import shutil
import statistics
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
from material import LARGER, NOT_THE_DEMOS, TINY, Base, make_base, pairs, rankings, write_rankings

from rlhf.data.encode import EncodedRanking
from rlhf.models.loading import load_scalar_model
from rlhf.models.scoring import answer_scores

BATCH, LR, ANSWERS = 8, 5e-4, 6


@dataclass
class Bench:
    """One comparison in a scratch folder: rows of `num_answers` answers each."""

    work: Path
    source: Path
    base: Base
    num_rows: int
    python: Path
    num_answers: int = 2

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        self.log = self.work / "sides.log"
        records, encoded = rankings(self.source, self.base, self.num_rows, answers=self.num_answers)
        self.train = write_rankings(self.work / "train.jsonl", records)
        chosen, rejected = pairs(encoded)
        self.pairs_a_row = len(chosen) / len(records)
        self.num_steps = -(-len(records) // BATCH)
        self.rows = self.work / "pairs.json"
        self.rows.write_text(json.dumps({"chosen": chosen, "rejected": rejected}))

    def ours(self, seed: int = 17) -> dict[str, Any]:
        """The shipped script, from its metrics; rows a second."""
        folder = self.work / "ours"
        shutil.rmtree(folder, ignore_errors=True)
        run(deepspeed(ROOT / "scripts" / "step2_reward.py", *self.words(folder, seed)), self.log)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        seconds = lines[-1]["time/wall_s"]
        rows = sum(line["batch/num_rankings"] for line in lines)
        return {"rows_per_s": rows / seconds, "train_loss": statistics.mean(line["loss"] for line in lines[-10:])}

    def words(self, folder: Path, seed: int) -> list[str]:
        """The shipped script's arguments."""
        return [
            "--config", str(ROOT / "configs" / "demo" / "reward.yaml"), f"run.dir={folder}", f"run.seed={seed}",
            *NOT_THE_DEMOS["reward"],
            f"model.path={self.base.path}", "data.template=kullm", f"data.train={self.train}", "data.eval=[]",
            "data.max_length=256", f"train.batch_size={BATCH}", "train.micro_tokens=4096", "train.epochs=1",
            f"train.lr={LR}", "train.schedule=constant", "train.warmup_steps=0", "train.weight_decay=0",
            "checkpoint.every_steps=100000",
        ]  # fmt: skip

    def trl(self, mode: str, *more: str) -> dict[str, Any]:
        """TRL in one of its modes; rows a second, a row being all its pairs."""
        result = self.work / f"trl-{mode}.json"
        run(self.trl_command(mode, result, *more), self.log)
        found = json.loads(result.read_text())
        seconds = found["seconds"][-1] - found["seconds"][0]
        count = sum(each["pairs"] for each in found["amounts"][: len(found["seconds"]) - 1])
        return {"rows_per_s": count / seconds / self.pairs_a_row, "num_pairs": count}

    def trl_command(self, mode: str, result: Path, *more: str) -> list[str]:
        words = ["--base", str(self.base.path), "--rows", str(self.rows), "--result", str(result), "--mode", mode]
        command = [str(self.python), str(SIDES / "trl_reward.py"), *words, "--batch", str(BATCH), "--lr", str(LR)]
        return [*command, *more]

    def sides(self, *more: str) -> list[Side]:
        """Ours, TRL as it comes, TRL at its fastest."""
        return [
            Side("ours", lambda number: self.ours()),
            Side("trl_padded", lambda number: self.trl("padded", *more)),
            Side("trl_grouped", lambda number: self.trl("grouped", *more)),
        ]


def held_out_accuracy(model: Path, held_out: Sequence[EncodedRanking]) -> float:
    """Share of pairs whose better answer has the higher score, by one code for both sides."""
    reward = load_scalar_model(str(model))
    flat = [(item.prompt, answer) for item in held_out for answer in item.answers]
    scores = iter(answer_scores(reward, flat))
    right = 0.0
    for item in held_out:
        first, second = next(scores), next(scores)
        better, worse = (first, second) if item.ranks[0] < item.ranks[1] else (second, first)
        right += 0.5 if better == worse else float(better > worse)
    return right / len(held_out)


def accuracies(bench: Bench, dev: Path, seeds: Sequence[int]) -> list[dict[str, float]]:
    """Held-out accuracy of both sides, trained alike on the same pairs for the same steps."""
    _, held_out = rankings(dev, bench.base, 10**9)
    found = []
    for seed in seeds:
        bench.ours(seed)
        saved = bench.work / "saved"
        bench.trl("padded", "--seed", str(seed), "--save", str(saved))
        one = {"seed": seed, "ours": held_out_accuracy(bench.work / "ours" / "model", held_out)}
        found.append({**one, "trl": held_out_accuracy(saved, held_out), "num_pairs": len(held_out)})
        say(f"seed {seed}: {found[-1]}")
    return found


def memory(bench: Bench) -> dict[str, float]:
    """Peak memory above the imports of both sides, in MiB."""
    result, folder = bench.work / "memory.json", bench.work / "memory"
    shutil.rmtree(folder, ignore_errors=True)
    command = deepspeed(SIDES / "ours_memory.py", str(result), "reward", *bench.words(folder, 17))
    ours = memory_mib(command, result, bench.log)
    save = ("--save", str(bench.work / "saved"))
    theirs = {m: memory_mib(bench.trl_command(m, result, *save), result, bench.log) for m in ("padded", "grouped")}
    return {"ours": ours, **{f"trl_{mode}": value for mode, value in theirs.items()}}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=240, help="pairs a round (default: %(default)s)")
    parser.add_argument("--k6-rows", type=int, default=64, help="rankings of six a round (default: %(default)s)")
    parser.add_argument("--accuracy-rows", type=int, default=1200, help="pairs a seed, 0: none (default: %(default)s)")
    options = parser.parse_args()
    work = scratch(options)
    python, data = TRL.python(), options.data.resolve()
    base = make_base(data, work / "base", TINY)
    pair_file, ranking_file = data / "preference_train.jsonl", data / "ranking_train.jsonl"
    rounds = alternate(Bench(work / "pairs", pair_file, base, options.rows, python).sides(), options.rounds)
    say(f"rankings of {ANSWERS}")
    six = Bench(work / "six", ranking_file, base, options.k6_rows, python, num_answers=ANSWERS)
    k6_rounds = alternate(six.sides("--max-steps", str(6 * six.num_steps)), options.rounds)
    say("memory, 34 M parameters")
    large = make_base(data, work / "large", LARGER)
    peaks = memory(Bench(work / "memory", pair_file, large, 64, python))
    accuracy: list[dict[str, float]] = []
    if options.accuracy_rows:
        say("held-out accuracy")
        learnt = Bench(work / "accuracy", pair_file, base, options.accuracy_rows, python)
        accuracy = accuracies(learnt, data / "preference_dev.jsonl", (17, 18, 19))
    best = fastest(rounds, ("trl_padded", "trl_grouped"), "rows_per_s")
    write(
        options.out,
        {
            "reward_pairs_ratio": ratio(rounds, "ours", "trl_padded", "rows_per_s"),
            "reward_best_ratio": ratio(rounds, "ours", best, "rows_per_s"),
            "reward_k6_ratio": ratio(k6_rounds, "ours", "trl_padded", "rows_per_s"),
            "reward_k6_best_ratio": min(
                ratio(k6_rounds, "ours", mode, "rows_per_s") for mode in ("trl_padded", "trl_grouped")
            ),
            "memory_ratio": peaks["ours"] / min(peaks["trl_padded"], peaks["trl_grouped"]),
            **({"accuracy_difference": statistics.mean(e["ours"] - e["trl"] for e in accuracy)} if accuracy else {}),
            "best_mode": best,
            "memory_mib": peaks,
            "accuracy": accuracy,
            "pairs_a_ranking_of_six": six.pairs_a_row,
            "versions": versions(python),
            "rounds": rounds,
            "k6_rounds": k6_rounds,
        },
    )
    drop_scratch(options, work)


if __name__ == "__main__":
    main()
