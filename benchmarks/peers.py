"""The three stages against LLaMA-Factory and ms-swift, each in an environment of its own and at its quickest setting.

python benchmarks/peers.py --data DIR --out peers.json [--rounds 5]

All sides train the same ids of a GPT-NeoX of 7.3 M parameters in float32, 8 rows a step; the rows are chosen so that
every side makes the same ids of the same texts, and tokens are counted on each. A peer runs under DeepSpeed at ZeRO 0
where it can, as this project does. Its settings (padded, grouped by length, packed) are tried once, and the rounds are
of the quickest. Stage 3: 8 prompts with exactly 64 new tokens each, four models, one epoch of one minibatch. Speed is
work over the wall time from the beginning of training to the end of the last step (stage 3: from the end of the first
iteration). What gave no figure is under `missing`, with what was said, and under `impossible` where the peer itself
ended with an error in every setting. A peer that fails within the rounds is left out, and those of the others begin
anew.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environments import versions
from harness import ROOT, Side, alternate, arguments, deepspeed, drop_scratch, ratio, run, say, scratch, write
from material import NOT_THE_DEMOS, TINY, Base, make_base
from peer_material import Rows, prompt_rows, reward_rows, sft_rows, write_lf_index
from peer_sides import BATCH, Peer, PeerError, PeerFailedError, Task, modes, peers
from ppo_material import Stages, make_prompts, silenced

from rlhf.data.sources import DataSource

NEW_TOKENS, ITERATIONS = 64, 4
FIGURE = {"sft": "tokens_per_s", "reward": "pairs_per_s", "ppo": "samples_per_s"}
SAME_WORK = 0.01  # share by which tokens may differ between the sides
SCRIPTS = {"sft": "step1_sft", "reward": "step2_reward", "ppo": "step3_ppo"}


@dataclass
class Found:
    """What is written at the end."""

    ratios: dict[str, float] = field(default_factory=dict)
    rounds: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    impossible: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    trials: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Bench:
    """One stage in a scratch folder."""

    task: Task
    work: Path
    words: Sequence[str]

    @property
    def figure(self) -> str:
        return FIGURE[self.task.stage]

    def ours(self, number: int) -> dict[str, Any]:
        """The shipped script, from its metrics."""
        folder = self.work / f"ours-{self.task.stage}"
        shutil.rmtree(folder, ignore_errors=True)
        config = ROOT / "configs" / "demo" / f"{self.task.stage}.yaml"
        words = ["--config", str(config), f"run.dir={folder}", *NOT_THE_DEMOS[self.task.stage], *self.words]
        run(deepspeed(ROOT / "scripts" / f"{SCRIPTS[self.task.stage]}.py", *words), self.work / "ours.log")
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        walls = [line["time/wall_s"] for line in lines]
        losses = [line["loss"] for line in lines if "loss" in line]
        begun = 0.0 if self.task.stage != "ppo" else walls[0]
        return self._figures(walls[-1] - begun, losses, self.task.rows.tokens)

    def _figures(self, seconds: float, losses: Sequence[float], tokens: int) -> dict[str, Any]:
        rows = self.task.rows
        amount = {"sft": rows.tokens, "reward": rows.num_rows, "ppo": rows.num_rows * (self.task.iterations - 1)}
        mean = statistics.mean(losses) if losses else None
        return {self.figure: amount[self.task.stage] / seconds, "seconds": seconds, "loss": mean, "tokens": tokens}

    def theirs(self, peer: Peer, mode: str, *, engine: bool) -> dict[str, Any]:
        """A run of a peer.

        Raises: PeerError where it fails, or did other work than the rows hold.
        """
        packed = round(BATCH * self.task.rows.tokens / self.task.rows.num_rows / 256) if mode == "packed" else BATCH
        given = peer.arguments(self.task, mode, engine=engine, rows_a_batch=max(1, packed))
        found = peer.run(given, engine=engine)
        ends = found["seconds"]
        if len(ends) < 2 + (self.task.stage == "ppo"):
            raise PeerError(f"{len(ends)} steps were seen")
        tokens, rows = found["work"]["tokens"], self.task.rows
        if self.task.stage != "ppo" and abs(tokens / rows.tokens - 1) > SAME_WORK:
            raise PeerError(f"trains {tokens} tokens where the rows hold {rows.tokens}")
        if self.task.stage == "ppo":
            steps = len(ends) - 1
            if steps != self.task.iterations:
                raise PeerError(f"ran {steps} iterations where {self.task.iterations} were asked for")
        begun = ends[1] if self.task.stage == "ppo" else ends[0]
        return self._figures(ends[-1] - begun, found["losses"], tokens)


def fastest_setting(bench: Bench, peer: Peer, found: Found) -> Callable[[int], dict[str, Any]] | None:
    """The quickest of a peer's settings, under DeepSpeed if it runs there; None where none runs."""
    key, speeds, errors = f"{bench.task.stage}_{peer.name}", {}, list[PeerError]()
    for engine in (True, False):
        for mode in modes(bench.task.stage, peer.name):
            name = f"{mode}, DeepSpeed" if engine else mode
            try:
                speeds[mode] = bench.theirs(peer, mode, engine=engine)[bench.figure]
                say(f"{key} {name}: {speeds[mode]:.4g} {bench.figure}")
            except PeerError as error:
                errors.append(error)
                say(f"{key} {name}: {error}")
        if speeds:
            best = max(speeds, key=speeds.__getitem__)
            found.settings[key] = f"{best}, DeepSpeed" if engine else best
            found.trials[key] = speeds
            return lambda number: _in_a_round(bench, peer, best, engine=engine)
    found.missing[key] = str(errors[-1])
    if all(isinstance(error, PeerFailedError) for error in errors):
        found.impossible.append(key)
    return None


class RoundError(Exception):
    """A peer that ran in its trial failed within the rounds."""

    def __init__(self, peer: str, error: PeerError) -> None:
        super().__init__(str(error))
        self.peer = peer


def _in_a_round(bench: Bench, peer: Peer, mode: str, *, engine: bool) -> dict[str, Any]:
    try:
        return bench.theirs(peer, mode, engine=engine)
    except PeerError as error:
        raise RoundError(peer.name, error) from error


def compare(bench: Bench, rivals: Sequence[Peer], rounds: int, found: Found) -> None:
    """Rounds of ours and each peer that runs."""
    stage = bench.task.stage
    theirs = {peer.name: fastest_setting(bench, peer, found) for peer in rivals}
    sides = [Side("ours", bench.ours), *(Side(name, measure) for name, measure in theirs.items() if measure)]
    while len(sides) > 1:
        try:
            kept = alternate(sides, rounds)
        except RoundError as error:
            say(f"{stage}_{error.peer} is left out: {error}")
            found.missing[f"{stage}_{error.peer}"] = f"ended within the rounds: {error}"
            sides = [side for side in sides if side.name != error.peer]
            continue
        found.rounds[f"rounds_{stage}"] = kept
        for side in sides[1:]:
            found.ratios[f"{stage}_{side.name}"] = ratio(kept, "ours", side.name, bench.figure)
        return


def common_words(base: Base, rows: Rows, lr: float) -> list[str]:
    return [
        f"model.path={base.path}", f"data.train={rows.ours}", "data.eval=[]", "data.template=kullm",
        "data.max_length=256", f"train.batch_size={BATCH}", "train.micro_tokens=4096", "train.epochs=1",
        f"train.lr={lr}", "train.schedule=constant", "train.warmup_steps=0", "train.weight_decay=0",
        "checkpoint.every_steps=100000",
    ]  # fmt: skip


def sft_bench(data: Path, base: Base, work: Path, count: int) -> Bench:
    rows = sft_rows(data, base, work, count)
    return Bench(
        Task("sft", base.path, rows, 1e-3), work, [*common_words(base, rows, 1e-3), "log.samples_every_steps=null"]
    )


def reward_bench(data: Path, base: Base, work: Path, count: int) -> Bench:
    rows = reward_rows(data, base, work, count)
    return Bench(Task("reward", base.path, rows, 5e-4), work, common_words(base, rows, 5e-4))


def ppo_bench(data: Path, base: Base, work: Path) -> Bench:
    """Four models of one shape; EOS and PAD cannot be sampled, so that every answer has its full length."""
    stages = Stages(data, base, work)
    policy = stages.sft(1600, "train.lr=1e-3") / "model"  # as in ppo.py: `silenced` needs a norm whose bias has grown
    reward = stages.reward(policy, 64, "train.lr=2e-4") / "model"
    endless = silenced(policy, work / "endless", (base.tokenizer.eos_id, base.tokenizer.pad_id))
    source = [DataSource(str(data / "prompts_train.jsonl"))]
    prompts = make_prompts(source, base, work, count=BATCH, max_tokens=128, name="prompts")
    rows = prompt_rows(base, work, prompts.records, prompts.ids)
    words = [
        f"actor.path={endless}", f"reward.path={reward}", "reward.min_accuracy=null", f"data.train={rows.ours}",
        "data.eval=[]", f"train.epochs={ITERATIONS}", f"train.batch_size={BATCH}", "train.lr=1e-6", "critic.lr=1e-6",
        "train.warmup_steps=0", f"ppo.rollout_size={BATCH}", "ppo.epochs=1", "ppo.kl_coefficient=0.05",
        f"sampling.batch_size={BATCH}", f"sampling.max_new_tokens={NEW_TOKENS}", "sampling.max_prompt_tokens=128",
        "log.samples_every_steps=null", "checkpoint.every_steps=100000",
    ]  # fmt: skip
    task = Task("ppo", endless, rows, 1e-6, reward=reward, new_tokens=NEW_TOKENS, iterations=ITERATIONS)
    return Bench(task, work, words)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=96, help="rows and pairs a round (default: %(default)s)")
    parser.add_argument("--stages", nargs="+", choices=tuple(FIGURE), default=list(FIGURE), help="default: all")
    options = parser.parse_args()
    work, data = scratch(options), options.data.resolve()
    base = make_base(data, work / "base", TINY)
    base.tokenizer.save(base.path)  # with the template, which the peers would otherwise miss
    rivals, found = peers(work), Found()
    write_lf_index(work)
    make: dict[str, Callable[[], Bench]] = {
        "sft": lambda: sft_bench(data, base, work, options.rows),
        "reward": lambda: reward_bench(data, base, work, options.rows),
        "ppo": lambda: ppo_bench(data, base, work),
    }
    for stage in options.stages:
        compare(make[stage](), rivals, options.rounds, found)
    write(
        options.out,
        {
            **found.ratios,
            "missing": found.missing,
            "impossible": found.impossible,
            "settings": found.settings,
            "trials": found.trials,
            "rows": options.rows,
            "versions": {peer.name: versions(peer.environment.python()) for peer in rivals},
            **found.rounds,
        },
    )
    drop_scratch(options, work)


if __name__ == "__main__":
    main()
