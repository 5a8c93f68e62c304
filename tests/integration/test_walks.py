"""The walks of docs/data.md and docs/chat-with-your-own-style.md: their commands train models and test them.

The chats are shorter than on the pages, the job of the service makes one epoch, and stage 3 makes more of them, so that
its fewer prompts fill a batch.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.launcher import free_port
from tests.support.walks import run_walk, section, walk_script

SHORTER = {".splitlines()]": ".splitlines()[:60]]", "--out base ": "--hidden 64 --layers 2 --epochs 0.2 --out base "}


@pytest.mark.full
def test_from_a_chat_export_to_a_tested_policy(tmp_path: Path) -> None:
    text = section("data.md", "## The walk", "## More instructions")
    shorter = {**SHORTER, "8177": str(free_port()), "--limit 40": "--limit 16", "train.epochs=1": "train.epochs=4"}
    run_walk(text, tmp_path, shorter)
    manifest = json.loads((tmp_path / "ppo" / "model" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["stage"] == "ppo"
    card = json.loads((tmp_path / "tested" / "reward" / "report_card.json").read_text(encoding="utf-8"))
    assert card["num_pairs"] > 0
    assert card["leakage"]["num_prompts_seen"] == 0  # the test rows were seen by no stage
    compared = json.loads((tmp_path / "tested" / "compare" / "compare.json").read_text(encoding="utf-8"))
    held_out = (tmp_path / "split" / "kept_test.jsonl").read_text(encoding="utf-8").splitlines()
    assert compared["num_prompts"] == len(held_out) > 0


@pytest.mark.full
def test_a_model_that_talks_like_a_friend(tmp_path: Path) -> None:
    text = section("chat-with-your-own-style.md", "# A model that talks like a friend", "## Limits")
    shorter = {**SHORTER, "8391": str(free_port()), '"n_epochs": 4': '"n_epochs": 1'}
    assert "ft:tiny:local:sua:" in run_walk(text, tmp_path, shorter)
    report = json.loads((tmp_path / "tested" / "generation.json").read_text(encoding="utf-8"))
    (tested,) = report["references"].values()
    assert tested["num_references"] == report["num_prompts"] > 0
    vocabulary = json.loads((tmp_path / "base" / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    assert 1 < tested["perplexity"]["mean"] < vocabulary  # that of a model which knows nothing


def test_a_walk_stops_at_the_first_failure(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="first"):
        run_walk("\n```bash\necho first\nfalse\n```\n```bash\necho second > reached\n```\n", tmp_path, {})
    assert not (tmp_path / "reached").exists()


def test_blocks_that_leave_something_out_are_not_run() -> None:
    script = walk_script("\n```bash\ncurl x/ft-...\n```\n```json\n{}\n```\n```python\nprint(1)\n```\n", {"1": "2"})
    assert "curl" not in script
    assert script.endswith("python - <<'PYTHON_BLOCK'\nprint(2)\nPYTHON_BLOCK")
