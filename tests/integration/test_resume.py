"""A run that was killed goes on as if it had not been: every logged number, answer and weight is the same.

"The same" is bit for bit. Kills of one process land at a named call (starts.Fault); kills under the `deepspeed`
launcher come from outside, after a checkpoint was seen.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.conftest import ANSWERS, Finished, read_json, read_lines, read_run, require_same_run, write_rows
from tests.integration.starts import Fault, Launched, Starter, is_alive, launched, wait_until

KILLED = -signal.SIGKILL
HEAD = "embed_out.weight"  # lm_head in the module, and the name under which a lenient load loses it
SHARED = ["deepspeed.zero_stage=3", "train.epochs=4", "log.samples_every_steps=1"]  # 14 steps on two ranks
GRACE_S = 5.0  # orphaned ranks look for their launcher every second


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, starter: Starter, configs: dict[str, Path]) -> Finished:
    """Stage 1 in one go: 28 rows, two epochs, batches of 8, a checkpoint every two of its 7 steps."""
    folder = tmp_path_factory.mktemp("whole")
    starter.run("sft", "--config", configs["sft"], f"run.dir={folder}")
    return read_run(folder)


def test_the_uninterrupted_run_moves_what_resuming_could_lose(whole: Finished, tiny_neox: Path) -> None:
    assert [line["step"] for line in whole.metrics] == list(range(1, 8))
    losses = [line["eval/loss"] for line in whole.metrics if "eval/loss" in line]
    assert losses == sorted(losses, reverse=True)  # every checkpoint is the best so far, so the last one is exported
    assert len(losses) == 4
    start = load_file(tiny_neox / "model.safetensors")
    assert float((whole.weights[HEAD] - start[HEAD]).abs().max()) > 1e-2
    assert len({line["lr"] for line in whole.metrics}) == 7  # warm-up and decay


@pytest.mark.parametrize(
    ("target", "call", "after"),
    [
        pytest.param("rlhf.train.sft:sft_step", 2, None, id="before the first checkpoint"),
        pytest.param("rlhf.train.sft:sft_step", 6, 4, id="between checkpoints"),
        pytest.param("rlhf.train.sft:save", 3, 4, id="logged and not saved"),
        pytest.param("rlhf.artifacts.checkpoint:flush_tree", 3, 4, id="while a checkpoint is written"),
        pytest.param("pathlib:Path.rename", 3, 4, id="before a checkpoint gets its name"),
        pytest.param("rlhf.artifacts.checkpoint:write_text", 1, None, id="before the pointer to the first"),
        pytest.param("rlhf.artifacts.checkpoint:write_text", 2, 2, id="before the pointer moves on"),
        pytest.param("rlhf.train.run.lifecycle:check_export", 1, 7, id="during the export"),
    ],
)
def test_a_killed_sft_run_goes_on_the_same(
    starter: Starter, configs: dict[str, Path], whole: Finished, tmp_path: Path, target: str, call: int, after: int
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}/run"]
    starter.run("sft", *words, fault=Fault(target, call), status=KILLED)
    assert read_json(tmp_path / "run" / "state.json")["status"] == "running"  # nobody was left to say otherwise
    tear_last_lines(tmp_path / "run")
    text = starter.run("sft", *words, "--resume", "auto")
    assert (f"after step {after}" in text) if after else ("resumed" not in text)
    require_same_run(tmp_path / "run", whole)


def tear_last_lines(folder: Path) -> None:
    """What a kill inside a write leaves: a line without its end, cut inside a character."""
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (folder / name).open("ab") as file:
            file.write('{"step": 5, "answer": "네'.encode()[:-1])


def test_the_best_checkpoint_outlives_later_ones_and_a_kill(
    starter: Starter, configs: dict[str, Path], korean: Path, tmp_path: Path
) -> None:
    """Held-out answers are plain, the learnt ones warm: the loss on them falls with the language and then rises."""
    rows = read_lines(korean / "prompts_dev.jsonl")
    write_rows(tmp_path / "plain.jsonl", [{**row, "response": ANSWERS[1]} for row in rows])
    words = ["--config", configs["sft"], f"data.eval={tmp_path}/plain.jsonl"]
    words += ["train.epochs=6", "train.schedule=constant"]
    starter.run("sft", *words, f"run.dir={tmp_path}/whole")
    expected = read_run(tmp_path / "whole")
    losses = {line["step"]: line["eval/loss"] for line in expected.metrics if "eval/loss" in line}
    best = min(losses, key=lambda step: losses[step])
    assert 2 < best < 16  # of 21
    saved = tmp_path / "whole" / "checkpoints" / f"step-{best:06d}" / "model" / "engine" / "mp_rank_00_model_states.pt"
    head = torch.load(saved, weights_only=False)["module"]["model.lm_head.weight"]
    assert torch.equal(expected.weights[HEAD], head)
    kept = sorted(path.name for path in (tmp_path / "whole" / "checkpoints").glob("step-*"))
    assert kept == [f"step-{step:06d}" for step in (best, 20, 21)]  # the best, and the last two (checkpoint.keep_last)
    fault = Fault("rlhf.train.sft:sft_step", 18)
    starter.run("sft", *words, f"run.dir={tmp_path}/killed", fault=fault, status=KILLED)
    assert "after step 16" in starter.run("sft", *words, f"run.dir={tmp_path}/killed", "--resume", "auto")
    require_same_run(tmp_path / "killed", expected)


def test_raising_max_steps_goes_on_the_same(
    starter: Starter, configs: dict[str, Path], whole: Finished, tmp_path: Path
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}"]
    starter.run("sft", *words, "run.max_steps=4")
    assert read_json(tmp_path / "state.json") == {"status": "finished", "stage": "sft", "step": 4, "reason": ""}
    half = load_file(tmp_path / "model" / "model.safetensors")
    assert not torch.equal(half[HEAD], whole.weights[HEAD])
    starter.run("sft", *words, "run.max_steps=100", "--resume", "auto")
    require_same_run(tmp_path, whole)


def test_resuming_a_finished_run_changes_nothing(
    starter: Starter, configs: dict[str, Path], whole: Finished, tmp_path: Path
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}", "--resume", "auto"]
    assert "resumed" not in starter.run("sft", *words)  # an empty folder: auto starts
    assert "after step 7" in starter.run("sft", *words)
    require_same_run(tmp_path, whole)


def test_a_killed_reward_run_goes_on_the_same(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    words = ["--config", configs["reward"], f"model.path={chain['sft']}", f"run.dir={tmp_path}"]
    starter.run("reward", *words, fault=Fault("rlhf.train.reward:reward_step", 6), status=KILLED)
    assert "after step 4" in starter.run("reward", *words, "--resume", "auto")
    require_same_reward(tmp_path, chain["reward"])


def require_same_reward(folder: Path, expected: Path) -> None:
    """As `require_same_run`; stage 2 samples no answers, and has a report card."""
    for each in (folder, expected):
        (each / "samples.jsonl").touch()
    require_same_run(folder, read_run(expected))
    cards = [read_json(each / "model" / "report_card.json") for each in (folder, expected)]
    assert cards[0] == cards[1]


def test_ppo_killed_in_the_middle_of_an_iteration_goes_on_the_same(
    starter: Starter, configs: dict[str, Path], chain: dict[str, Path], tmp_path: Path
) -> None:
    words = ["--config", configs["ppo"], f"actor.path={chain['sft']}", f"reward.path={chain['reward']}/model"]
    words.append(f"run.dir={tmp_path}")
    # 8 samples in batches of 4, twice: iterations 1 to 3 are 12 minibatches, and one of the fourth is done
    fault = Fault("rlhf.train.policy.update:minibatch", 14)
    starter.run("ppo", *words, fault=fault, status=KILLED)
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert "after step 2" in starter.run("ppo", *words, "--resume", "auto")
    expected = read_run(chain["ppo"])
    assert (
        len({line["objective/kl_coefficient"] for line in expected.metrics}) > 4
    )  # the controller moved, and came back
    require_same_run(tmp_path, expected)


# Under the launcher, on two ranks at ZeRO 3


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, starter: Starter, configs: dict[str, Path]) -> Finished:
    """Stage 1 on two ranks in one go."""
    folder = tmp_path_factory.mktemp("shared")
    starter.run_world("sft", "--config", configs["sft"], f"run.dir={folder}", *SHARED, ranks=2)
    return read_run(folder)


def wait_for_checkpoint(run: Launched, folder: Path, step: int) -> dict[int, int]:
    """Waits until the newest checkpoint is that of `step` or later; the ranks alive then."""
    pointer = folder / "checkpoints" / "latest"

    def reached() -> bool:
        assert run.process.poll() is None, f"ended before step {step}\n{run.log.read_text(encoding='utf-8')}"
        return pointer.is_file() and int(pointer.read_text().removeprefix("step-")) >= step

    wait_until(reached, f"a checkpoint of step {step}")
    return run.rank_pids()


@pytest.mark.full
def test_a_rank_killed_under_the_launcher(configs: dict[str, Path], shared: Finished, tmp_path: Path) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}/run", *SHARED]
    with launched("sft", *words, ranks=2, log=tmp_path / "first.txt") as run:
        ranks = wait_for_checkpoint(run, tmp_path / "run", 4)
        os.kill(ranks[1], signal.SIGKILL)
        assert run.wait().status != 0
        wait_until(lambda: not is_alive(ranks[0]), "the other rank's end", timeout=GRACE_S)
    require_unfinished(tmp_path / "run")
    with launched("sft", *words, "--resume", "auto", ranks=2, log=tmp_path / "second.txt") as run:
        outcome = run.wait()
    assert outcome.status == 0, outcome.text
    assert f"resumed from {tmp_path}/run/checkpoints/step-" in outcome.text
    require_same_run(tmp_path / "run", shared)


def test_ranks_stop_when_their_launcher_is_killed(
    starter: Starter, configs: dict[str, Path], shared: Finished, tmp_path: Path
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}/run", *SHARED]
    with launched("sft", *words, ranks=2, log=tmp_path / "first.txt") as run:
        ranks = wait_for_checkpoint(run, tmp_path / "run", 4)
        assert ranks.keys() == {0, 1}
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
        gone = wait_until(lambda: not any(map(is_alive, ranks.values())), "the ranks' end", timeout=GRACE_S)
        assert gone < GRACE_S
    require_unfinished(tmp_path / "run")
    assert "resumed" in starter.run_world("sft", *words, "--resume", "auto", ranks=2)  # and nobody holds the lock
    require_same_run(tmp_path / "run", shared)


def require_unfinished(folder: Path) -> None:
    """The kill came in time."""
    assert read_json(folder / "state.json")["status"] != "finished"
    assert not (folder / "model").exists()


# Asked to stop, damaged, changed, hung

ASKED = 75  # the exit status of a run that was asked to stop


def test_a_run_asked_to_stop_saves_its_step_and_goes_on_the_same(
    starter: Starter, configs: dict[str, Path], whole: Finished, tmp_path: Path
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}"]
    fault = Fault("rlhf.train.sft:sft_step", 3, signal.SIGUSR1)
    text = starter.run("sft", *words, fault=fault, status=ASKED)
    assert "stopped after step 3, as asked by SIGUSR1; the work is saved" in text
    state = read_json(tmp_path / "state.json")
    assert (state["status"], state["step"]) == ("preempted", 3)
    assert "after step 3" in starter.run("sft", *words, "--resume", "auto")
    require_same_run(tmp_path, whole)


def test_one_rank_asked_stops_both(
    starter: Starter, configs: dict[str, Path], shared: Finished, tmp_path: Path
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}", *SHARED]
    faults = {1: Fault("rlhf.train.sft:sft_step", 5, signal.SIGTERM)}
    world = starter.start_world("sft", *words, ranks=2, faults=faults)
    assert [each.wait().status for each in world] == [ASKED, ASKED]
    state = read_json(tmp_path / "state.json")
    assert (state["status"], state["step"]) == ("preempted", 5)
    assert "after step 5" in starter.run_world("sft", *words, "--resume", "auto", ranks=2)
    require_same_run(tmp_path, shared)


def test_a_damaged_checkpoint_is_named_and_the_one_before_gone_on_from(
    starter: Starter, configs: dict[str, Path], korean: Path, whole: Finished, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    data = tmp_path / "data" / "sft_train.jsonl"
    data.write_bytes((korean / "sft_train.jsonl").read_bytes())
    run = tmp_path / "run"
    words = ["--config", configs["sft"], f"run.dir={run}", f"data.train={data}"]
    starter.run("sft", *words, fault=Fault("rlhf.train.sft:sft_step", 6), status=KILLED)
    # 1. other data than the run began with are refused
    data.write_text(data.read_text(encoding="utf-8").replace("좋아요?", "좋은가요?", 1), encoding="utf-8")
    text = starter.run("sft", *words, "--resume", "auto", status=1)
    assert f"train data, source 1, {data}: its SHA-256 is " in text
    data.write_bytes((korean / "sft_train.jsonl").read_bytes())
    # 2. a flipped bit
    shard = run / "checkpoints" / "step-000004" / "model" / "engine" / "mp_rank_00_model_states.pt"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    text = starter.run("sft", *words, "--resume", "step-000004", status=1)
    assert "step-000004 is damaged: model/engine/mp_rank_00_model_states.pt holds other bytes than were saved" in text
    # 3. the same data elsewhere are the same data
    text = starter.run("sft", *words[:-1], "--resume", "auto")
    assert f"data.train.0.path: {data} -> {korean}/sft_train.jsonl" in text
    assert "warning: " in text
    assert "after step 2" in text
    require_same_run(run, whole)
    assert (run / "checkpoints" / "aside-step-000004").is_dir()


@pytest.mark.parametrize(
    ("stage", "sources", "settings"),
    [
        ("sft", {"train": "sft_train", "eval": "sft_dev"}, []),
        ("reward", {"train": "rankings_train", "eval": "rankings_dev", "demonstrations": "sft_dev"}, []),
        (
            "ppo",
            {"train": "prompts_train", "eval": "prompts_dev", "ptx": "sft_train"},
            ["ppo.ptx_weight=0.5", "control.enabled=false"],
        ),
        ("dpo", {"train": "rankings_train", "eval": "rankings_dev"}, []),
    ],
)
def test_data_may_move_and_not_change_whatever_they_are_read_for(
    starter: Starter,
    configs: dict[str, Path],
    korean: Path,
    chain: dict[str, Path],
    tmp_path: Path,
    stage: str,
    sources: dict[str, str],
    settings: list[str],
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    for role, name in sources.items():
        shutil.copy(korean / f"{name}.jsonl", old / f"{role}.jsonl")
    start, scorer = chain["sft"], chain["reward"] / "model"
    models = [f"actor.path={start}", f"reward.path={scorer}"] if stage == "ppo" else [f"model.path={start}"]
    words = ["--config", configs[stage], f"run.dir={tmp_path}/run", "run.max_steps=2", *models, *settings]
    starter.run(stage, *words, *(f"data.{role}={old}/{role}.jsonl" for role in sources))
    old.rename(new)
    words += [f"data.{role}={new}/{role}.jsonl" for role in sources] + ["--resume", "auto"]
    held = {role: (new / f"{role}.jsonl").read_bytes() for role in sources}
    for role, content in held.items():
        (new / f"{role}.jsonl").write_bytes(content + content[: content.index(b"\n") + 1])  # its first row again
    text = starter.run(stage, *words, status=1)
    for role in sources:
        assert f"{role} data, source 1, {new}/{role}.jsonl: its SHA-256 is " in text
    for role, content in held.items():
        (new / f"{role}.jsonl").write_bytes(content)
    text = starter.run(stage, *words)
    assert "after step 2" in text
    for role in sources:
        assert f"data.{role}.0.path: {old}/{role}.jsonl -> {new}/{role}.jsonl" in text
    (tmp_path / "run" / "manifest.json").unlink()
    text = starter.run(stage, *words, status=1)
    assert f"warning: {tmp_path}/run/manifest.json is gone" in text
    for role in sources:
        assert f"{role}.jsonl, and no hash of what was read there is known" in text


def test_a_rank_that_hangs_is_named_and_the_run_ends(
    starter: Starter, configs: dict[str, Path], tmp_path: Path
) -> None:
    words = ["--config", configs["sft"], f"run.dir={tmp_path}", "run.watchdog_minutes=0.15"]
    faults = {1: Fault("rlhf.train.sft:sft_step", 3, signal.SIGSTOP)}
    world = starter.start_world("sft", *words, ranks=2, faults=faults)
    try:
        outcome = world[0].wait()
    finally:
        world[1].kill()
    assert outcome.status == 1
    state = read_json(tmp_path / "state.json")
    assert (state["status"], state["step"]) == ("failed", 2)
    assert "step 3 did not end within 0.15 minutes (run.watchdog_minutes): rank 1 does not answer" in state["reason"]
    assert "rank 0 waits for others in " in state["reason"]
    assert state["reason"] in outcome.text
    assert "sft_step" in (tmp_path / "hang" / "rank-0000.txt").read_text(encoding="utf-8")
