"""The three stages in bfloat16 under the launcher, at every ZeRO stage, with all weights and with LoRA.

Each chain trains, saves, loads (stage 1 is continued from its checkpoint), exports and reads the export in the next
stage. On a GPU machine the chains run beside one another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.gpu.conftest import Record, Target
from tests.integration.conftest import configs, korean  # noqa: F401 - fixtures
from tests.integration.starts import SCRIPTS
from tests.support.launcher import run_deepspeed

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(400)]

CHAINS = tuple((zero, lora) for zero in range(4) for lora in (False, True))
TRIED = ((0, True), (3, False))  # of a tiny run
CORES = 2  # of a chain: launcher, rank and their threads
COMMON = ("model.dtype=bfloat16", "train.epochs=1", "eval.max_rows=4", "checkpoint.every_steps=1", "run.max_steps=2")
Chain = dict[str, Path]


def run_chain(zero: int, lora: bool, target: Target, files: dict[str, Path], folder: Path) -> Chain:
    """Run folders by stage."""
    runs = {stage: folder / stage for stage in SCRIPTS}
    words = [*COMMON, f"deepspeed.zero_stage={zero}", *(["model.lora.rank=4"] if lora else [])]

    def start(stage: str, *more: str) -> None:
        given = ("--config", files[stage], f"run.dir={runs[stage]}", *words, *more)
        run_deepspeed(SCRIPTS[stage], *given, env=target.environment, timeout=150)

    start("sft", "run.max_steps=1")
    start("sft", "--resume", "auto")
    start("reward", f"model.path={runs['sft']}/model")
    start("ppo", f"actor.path={runs['sft']}/model", f"reward.path={runs['reward']}/model", "reward.min_accuracy=null")
    return runs


@pytest.fixture(scope="module")
def chains(
    tmp_path_factory: pytest.TempPathFactory,
    target: Target,
    configs: dict[str, Path],  # noqa: F811
) -> dict[tuple[int, bool], Future[Chain]]:
    """Every chain, started; those of a tiny run are two."""
    pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // CORES) if target.on_gpu else 1)
    started = {}
    for zero, lora in TRIED if target.tiny else CHAINS:
        run: Callable[[], Chain] = partial(
            run_chain, zero, lora, target, configs, tmp_path_factory.mktemp(f"zero{zero}-{'lora' if lora else 'full'}")
        )
        started[zero, lora] = pool.submit(run)
    return started


@pytest.mark.parametrize(("zero", "lora"), CHAINS, ids=[f"zero{z}-{'lora' if on else 'full'}" for z, on in CHAINS])
def test_stages(
    chains: dict[tuple[int, bool], Future[Chain]],
    tiny_neox: Path,
    zero: int,
    lora: bool,
    record_property: Record,
) -> None:
    if (zero, lora) not in chains:
        pytest.skip("a tiny run tries two of the eight chains")
    runs = chains[zero, lora].result()
    before = load_file(tiny_neox / "model.safetensors")
    for stage, folder in runs.items():
        assert json.loads((folder / "state.json").read_text(encoding="utf-8"))["status"] == "finished"
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [line["step"] for line in lines] == [1, 2], stage
        record_property(f"{stage}: loss, gradient norm", [(line["loss"], line["grad_norm"]) for line in lines])
        after = load_file(folder / "model" / "model.safetensors")
        assert all(bool(weight.isfinite().all()) for weight in after.values())
        changed = [name for name, weight in after.items() if name in before and not weight.equal(before[name])]
        assert any("attention.query_key_value.weight" in name for name in changed), stage
        assert (folder / "adapter").is_dir() == lora, stage
