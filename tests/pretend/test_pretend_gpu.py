"""On the pretend GPU: no tensor on the wrong device in any step, and a budget of synchronisations and copies for each.

A synchronisation leaves the GPU idle until the host has read the answer; a copy from pageable memory is one too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.tokenizer import ChatTokenizer
from tests.support.lora_runs import make_lora_run

ROOT = Path(__file__).parents[2]
KINDS = [
    "float32 sdpa",
    pytest.param("float32 varlen", marks=pytest.mark.full),
    pytest.param("bfloat16 sdpa", marks=pytest.mark.full),
    "bfloat16 varlen",
]
PER_ROW = 3  # synchronisations of one micro-batch
PER_DECODE = 2  # synchronisations, and copies, of one decode step
PER_REUSE = 4  # of one that keeps distributions on the host, or verifies drafts as it prefills
BOUNDS = "/models/attention.py"  # bounds of the variable-length kernel, which are no part of the row's transfer
PARKED = "/engine/parking.py"  # weights of a parked role, which come once for all rows
# A row of the smallest minibatch pays for the step: the sums of all metrics, and the gradient norms.
TRAINING = ("update", "sft_step", "reward_step", "preference_step")
ROWS = (
    *TRAINING,
    "experience",
    "with_training_logprobs",
    "evaluate_sft",
    "held_out_accuracy",
    "report card",
    "evaluate_preferences",
)
EVALUATION = ("evaluate references", "answer_logprobs", "answer_scores", "tree_scores")
Steps = dict[str, dict[str, Any]]


@pytest.fixture(scope="module", params=KINDS)
def steps(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_neox: Path,
    tiny_llama: Path,
    tiny_reward: Path,
    chat_tokenizer: ChatTokenizer,
) -> Steps:
    folder = tmp_path_factory.mktemp("pretend")
    for name, path in (("neox", tiny_neox), ("llama", tiny_llama), ("reward", tiny_reward)):
        (folder / name).symlink_to(path)
    make_lora_run(tiny_neox, folder / "sft-run", chat_tokenizer, stage="sft", seed=1)
    make_lora_run(tiny_neox, folder / "reward-run", chat_tokenizer, stage="reward", seed=2, score_offset=0.5)
    out = folder / "walk.json"
    command = [sys.executable, "-m", "tests.pretend.walk", str(folder), str(out), *request.param.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: Steps = json.loads(out.read_text(encoding="utf-8"))
    return found


def total(counts: list[list[Any]], *, without: tuple[str, ...] = ()) -> int:
    return sum(count for _, line, count in counts if not line.startswith(without))


def of_rows(steps: Steps) -> dict[str, dict[str, Any]]:
    """The steps that run packed rows and decode nothing."""
    return {name: step for name, step in steps.items() if any(word in name for word in (*ROWS, *EVALUATION))}


def test_the_walk_is_whole(steps: Steps) -> None:
    """Every kind of step of both kinds of roles is there, and did work."""
    assert {name.partition(" ")[0] for name in steps} >= {"separate", "shared", "neox", "llama", "service"}
    # of the roles; of stages 1 and 2; of dpo; of evaluation
    assert len(of_rows(steps)) == 2 * 8 + 2 * 2 + 3 + 4 + 4
    assert all(step["rows"] for step in of_rows(steps).values())
    assert all(step["decodes"] for name, step in steps.items() if "decode" in name or name == "service")


def test_the_pretend_gpu_refuses_and_counts(steps: Steps) -> None:
    assert "tensors on two devices" in steps["refused: two devices"]["error"]
    assert "no numpy array" in steps["refused: numpy"]["error"]
    expected = {  # (synchronisations, copies)
        "item": (1, 0),
        "index by a mask": (1, 0),
        "copy from pageable memory": (1, 1),
        "a new tensor from the host": (1, 1),
        "nothing": (0, 0),
        "a row": (0, 1),
    }
    for name, counts in expected.items():
        step = steps[f"counted: {name}"]
        assert (total(step["synchronisations"]), total(step["copies"])) == counts, name


def test_no_tensor_is_on_the_wrong_device(steps: Steps) -> None:
    wrong = {name: step["error"] for name, step in steps.items() if not name.startswith("refused")}
    assert not {name: error for name, error in wrong.items() if error}


def test_a_row_goes_to_the_device_in_one_transfer(steps: Steps) -> None:
    for name, step in of_rows(steps).items():
        assert total(step["copies"], without=(BOUNDS, PARKED)) == step["rows"], (name, step["copies"])
        waited = [each for each in step["synchronisations"] if each[0] == "blocking copy"]
        assert total(waited, without=(BOUNDS, PARKED)) == 0, (name, waited)


def test_a_micro_batch_waits_for_the_device_three_times_at_most(steps: Steps) -> None:
    for name, step in of_rows(steps).items():
        waits = total(step["synchronisations"], without=(BOUNDS, PARKED))
        assert waits <= PER_ROW * step["rows"], (name, step["synchronisations"])


def test_a_decode_step_waits_twice_and_copies_twice_at_most(steps: Steps) -> None:
    """Prefills are counted among the steps."""
    for name, step in steps.items():
        if not step["decodes"] or step["rows"]:
            continue
        most = (PER_REUSE if "reuse" in name else PER_DECODE) * step["decodes"]
        assert total(step["synchronisations"]) <= most, (name, step["synchronisations"])
        assert total(step["copies"]) <= most, (name, step["copies"])


def test_the_bounds_of_segments_are_made_once_per_row(steps: Steps) -> None:
    """Not once per layer and recomputation; roles that read one row share them."""
    for name, step in of_rows(steps).items():
        bounds = [each for each in step["copies"] if each[1].startswith(BOUNDS)]
        assert total(bounds) <= step["rows"], (name, bounds)
