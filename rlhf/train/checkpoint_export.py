"""`rlhf export --checkpoint`: publishes the model of an unfinished run or of an earlier step.

It runs in one process on the CPU, whatever ranks and ZeRO stage saved the checkpoint. A scratch folder beside the
output is filled as if the run had ended there, and published; the run folder is only read.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.artifacts.checkpoint import STATE_FILE, Checkpoint, CheckpointStore
from rlhf.artifacts.files import scratch_beside
from rlhf.artifacts.fixed_text import fixed_row, fixed_sequences
from rlhf.artifacts.publish import ModelOrigin, Published, check_request, publish
from rlhf.artifacts.publish_options import ExportOptions
from rlhf.artifacts.reload import Reload, in_fresh_process
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.load import load_config
from rlhf.config.sections import DeepSpeedSection, ModelSection
from rlhf.config.stages import STAGES
from rlhf.data.packing import PackedRow
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.ranks import Ranks
from rlhf.engine.whole_state import WholeState
from rlhf.errors import ArtifactError, CheckpointError
from rlhf.models.loading import PackedModel, artifact_model_path
from rlhf.models.shared import SharedBackbone
from rlhf.train.models import build_causal_lm, build_scalar_model, is_scalar_folder, make_trainable
from rlhf.train.policy.build_roles import checked_paths
from rlhf.train.policy.shared_roles import build_backbone, find_sources
from rlhf.train.run.lifecycle import export
from rlhf.train.run.run import Run

WHOLE = DeepSpeedSection.model_validate({"zero_stage": 0})
UNSHIFTED = "scores are as trained: a run sets their mean to 0 only when it ends"


def publish_checkpoint(
    path: Path,
    out: Path,
    checkpoint: str,
    options: ExportOptions = ExportOptions(),
    *,
    reload: Reload = in_fresh_process,
) -> Published:
    """Writes the model of a checkpoint of the run in `path` into `out`; in stage 3 that is the actor.

    Args:
        checkpoint: step-000100, latest, or best (where the run marked one).

    Raises: what `publish` raises; CheckpointError for a checkpoint that is not there, is damaged, or is of another
        model than the run's config.yaml and base now give.
    """
    check_request(path, out, options)
    found, stage = find_checkpoint(path, checkpoint), str(RunFolder(path).state().get("stage", ""))
    with scratch_beside(out, "checkpoint") as scratch:
        assembled = _assemble(path, scratch, found, stage)
        note = f"{found.path.name}, a checkpoint after step {found.step}"
        origin = ModelOrigin(path, found.path.name, f"{note}; {UNSHIFTED}" if stage == "reward" else note)
        return publish(assembled, out, options, origin=origin, reload=reload)


def find_checkpoint(path: Path, name: str) -> Checkpoint:
    """The checkpoint of a run by name, with its files verified.

    Raises: CheckpointError when there is no checkpoint of that name, or it is damaged.
    """
    folder = RunFolder(path).checkpoints
    store = CheckpointStore(folder, _alone(), keep_last=1)
    named = {each.path.name: each for each in (store.latest(), store.best()) if each is not None}
    present = sorted(each.parent.name for each in folder.glob(f"step-*/{STATE_FILE}"))
    found = store.latest() if name == "latest" else store.best() if name == "best" else named.get(name)
    if found is None and name in present:
        found = store.named(name)
    if found is None:
        raise CheckpointError(
            f"{folder} holds no checkpoint {name}",
            where="--checkpoint",
            expected=", ".join(["latest", *present]) if present else "a run that has saved a checkpoint",
        )
    store.require_undamaged(found)
    return found


def _alone() -> Ranks:
    return Ranks(0, 0, 1, torch.device("cpu"))


def _assemble(path: Path, scratch: Path, checkpoint: Checkpoint, stage: str) -> Path:
    """Makes a run folder as if the run had ended at the checkpoint."""
    if stage not in STAGES or not (path / "config.yaml").is_file() or not (path / "manifest.json").is_file():
        raise ArtifactError(
            f"{path} lacks its state.json, config.yaml or manifest.json",
            where="--run",
            expected="a run folder as a stage writes it",
        )
    folder = RunFolder(scratch)
    for name in ("config.yaml", "manifest.json", "metrics.jsonl"):
        if (path / name).is_file():
            shutil.copy(path / name, scratch / name)
    folder.cut_logs_after(checkpoint.step)
    config = load_config(STAGES[stage].config, path / "config.yaml")
    ranks = _alone()
    store = CheckpointStore(folder.checkpoints, ranks, keep_last=1)
    run = _QuietRun(stage, config, ranks, folder, store, None, dry_run=False, step=checkpoint.step)
    model = CheckpointModel.of(run, checkpoint)
    row = fixed_row(fixed_sequences(model.tokenizer, config.data.max_length), scalar=stage == "reward")
    export(run, model, model.tokenizer, row, base_path=model.base_path)
    folder.set_state("finished", stage=stage, step=checkpoint.step, reason=f"made from {checkpoint.path.name}")
    return scratch


class _QuietRun(Run[Any]):
    """A run in a scratch folder that prints nothing."""

    def say(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class CheckpointModel:
    """A model with the weights of a checkpoint, as `export` needs it.

    backbone: the shared backbone whose actor `model` is; None for a model of its own.
    """

    model: PackedModel
    tokenizer: ChatTokenizer
    base_path: str
    backbone: SharedBackbone | None = None

    @torch.no_grad()
    def infer(self, row: PackedRow) -> Tensor:
        if self.backbone is not None:
            self.backbone.select("actor")
        output: Tensor = self.model.eval()(row.input_ids, row.position_ids, row.segments, row.positions)
        return output

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.model.state_dict() if self.backbone is None else self.backbone.role_state("actor")

    @classmethod
    def of(cls, run: Run[Any], checkpoint: Checkpoint) -> CheckpointModel:
        """The model as the stage builds it, filled from the checkpoint."""
        config = run.config
        settings = config.model.model_copy(update={"dtype": "float32", "attention": "sdpa", "head": "chunked"})
        if run.stage == "ppo" and config.ppo.roles == "shared":
            return cls._shared(run, checkpoint, settings)
        named = config.actor.path if run.stage == "ppo" else ""
        path = artifact_model_path(named or config.model.path)
        tokenizer = load_tokenizer(path, config.data.template)
        model: PackedModel
        if run.stage == "reward":
            seed = None if is_scalar_folder(path) else config.run.seed
            model = build_scalar_model(
                path, settings, WHOLE, run.ranks, tokenizer, key="model.path", new_head_seed=seed
            )
        else:
            model = build_causal_lm(path, settings, WHOLE, run.ranks, tokenizer, key="model.path")
        make_trainable(model, settings, lambda _: None)
        WholeState(checkpoint.path / ("actor" if run.stage == "ppo" else "model")).fill(model)
        return cls(model, tokenizer, path)

    @classmethod
    def _shared(cls, run: Run[Any], checkpoint: Checkpoint, settings: ModelSection) -> CheckpointModel:
        paths = checked_paths(run.config)
        tokenizer = load_tokenizer(paths.actor, run.config.data.template)
        sources = find_sources(run.config, paths)
        config = run.config.model_copy(update={"model": settings, "deepspeed": WHOLE})
        silent = _QuietRun(run.stage, config, run.ranks, run.folder, run.store, None, dry_run=False)
        backbone = build_backbone(silent, sources, paths, tokenizer)
        WholeState(checkpoint.path / "shared").fill(backbone)
        return cls(backbone.language, tokenizer, sources.base_path, backbone)
