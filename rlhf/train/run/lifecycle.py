"""What every stage does around its steps: restore a checkpoint, save, write the manifest, export."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from rlhf.artifacts.export import check_export, save_model
from rlhf.artifacts.export_proof import prove_export
from rlhf.artifacts.files import read_json, write_json
from rlhf.artifacts.manifest import build_manifest
from rlhf.config.schema import LanguageConfig
from rlhf.config.sections import SamplingSection
from rlhf.data.packing import PackedRow, first_tokens
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.deepspeed import TrainedModel
from rlhf.errors import CheckpointError, NonFiniteError, PreemptedError
from rlhf.models.loading import PackedModel, PackedScalarModel
from rlhf.train.run.metrics import MetricsLog
from rlhf.train.run.resume import CONFIG, require_same_inputs
from rlhf.train.run.run import Run
from rlhf.train.run.trackers import Tracker, open_trackers

PROBE_TOKENS = 64
ProgressT = TypeVar("ProgressT")


class Savable(Protocol):
    """Something a checkpoint holds: all ranks write into an existing folder and read from it. `load` returns what was
    converted, and is empty where ranks and ZeRO stage are those that saved."""

    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> str: ...


class HasModel(Protocol):
    """A trained model, of which names and shapes are read."""

    @property
    def model(self) -> PackedModel: ...


class Exportable(HasModel, Protocol):
    """What `export` needs of a trained model; `TrainedModel` documents each."""

    def infer(self, row: PackedRow) -> Tensor: ...
    def state_dict(self) -> dict[str, Tensor]: ...


def is_due(step: int, every: int | None, last: int) -> bool:
    """Whether something that happens every `every` steps and at the end is due now; None is never."""
    return every is not None and (step % every == 0 or step == last)


def restore(run: Run[Any], roles: Mapping[str, Savable], fresh: ProgressT) -> ProgressT:
    """Restores the checkpoint the run was opened with; `fresh` progress when there is none."""
    checkpoint = run.resumed
    if checkpoint is None:
        run.on_main(lambda: run.folder.cut_logs_after(0))  # of a run killed before its first checkpoint
        return fresh
    converted = {role: model.load(checkpoint.path / role) for role, model in roles.items()}
    run.store.restore_random(checkpoint)
    run.on_main(lambda: run.folder.cut_logs_after(checkpoint.step))
    run.say(f"resumed from {checkpoint.path} after step {checkpoint.step}")
    for role, change in converted.items():
        if change:
            run.say(f"{role}: weights, optimizer state and averages were converted {change}")
    names = asdict(fresh)  # type: ignore[call-overload]
    missing = [name for name in names if name not in checkpoint.state]
    if missing:
        raise CheckpointError(f"{checkpoint.path} lacks {', '.join(missing)}: it is of another stage or version")
    return type(fresh)(**{name: checkpoint.state[name] for name in names})


@contextmanager
def metrics_log(run: Run[Any], last: int, shown: Sequence[str]) -> Iterator[MetricsLog]:
    """The log of a run that ends at step `last`; while it is open, the watchdog limits the time of each step."""
    log = MetricsLog(
        run.folder,
        total=last,
        start=run.step,
        active=run.ranks.is_main,
        shown=shown,
        open_trackers=partial(_trackers, run),
    )
    run.on_main(log.open)
    with log, run.watchdog.armed():
        yield log


def _trackers(run: Run[Any]) -> dict[str, Tracker]:
    """The services of the run; none for a dry run, of which nothing is kept."""
    if run.dry_run:
        return {}
    config = run.config.model_dump(mode="json")
    return open_trackers(run.folder.path, run.config.log, {"stage": run.stage, **config}, start=run.step)


def track_report(run: Run[Any], name: str, card: Mapping[str, Any]) -> None:
    """Gives a report that is made after the last step to the services of the run."""
    if not card:
        return
    log = MetricsLog(
        run.folder,
        total=run.step,
        start=run.step,
        active=run.ranks.is_main,
        shown=(),
        open_trackers=partial(_trackers, run),
    )
    run.on_main(log.open)
    with log:
        log.report(name, card)


def load_best(run: Run[Any], trained: TrainedModel) -> None:
    """Loads the weights of the best checkpoint, if there is one of another step (a dry run always loads)."""
    best = run.store.best()
    if best is not None and (best.step != run.step or run.dry_run):
        run.store.require_undamaged(best)
        trained.load(best.path / "model")


def save(run: Run[Any], roles: Mapping[str, Savable], progress: Any, *, best: bool = False) -> None:
    """A checkpoint of every trained role and of the progress."""

    def write(folder: Path) -> None:
        for role, model in roles.items():
            (folder / role).mkdir(exist_ok=True)
            model.save(folder / role)

    state = {**asdict(progress), "zero_stage": run.config.deepspeed.zero_stage}
    run.store.save(run.step, {**state, CONFIG: run.config.model_dump(mode="json")}, write, best=best)


def end_if_asked(run: Run[Any], roles: Mapping[str, Savable], progress: Any) -> None:
    """Called after a step: if any rank was asked to stop, saves a checkpoint and ends the run.

    Raises: PreemptedError.
    """
    stop = run.ranks.stop
    if not stop.agreed or run.dry_run:
        return
    latest = run.store.latest()
    if latest is None or latest.step != run.step:
        save(run, roles, progress)
    reason = next(each for each in run.ranks.gather(stop.reason) if each)
    raise PreemptedError(
        f"stopped after step {run.step}, as asked by {reason}; the work is saved", fix="go on with --resume auto"
    )


def require_finite(mean: float, step: int) -> None:
    """Raises NonFiniteError, before weights change, when the global loss is not finite."""
    if not math.isfinite(mean):
        raise NonFiniteError(
            f"the loss is {mean}; the weights were not updated",
            where=f"step {step}",
            fix="lower the learning rate, or look at the rows of this step",
        )


def write_manifest(
    run: Run[Any], tokenizer: ChatTokenizer, parents: dict[str, str], data: dict[str, list[dict[str, Any]]]
) -> None:
    """Writes manifest.json of this run; `data` maps train, eval and so on to source reports.

    Raises: CheckpointError when the run continues from a checkpoint and its data or models have changed.
    """
    file = run.folder.path / "manifest.json"

    def write() -> None:
        manifest = build_manifest(
            stage=run.stage,
            parents=parents,
            data=[{"role": role, **report} for role, reports in data.items() for report in reports],
            tokenizer={"sha256": tokenizer.fingerprint(), "template": tokenizer.template},
            settings={
                "world_size": run.ranks.world_size,
                "zero_stage": run.config.deepspeed.zero_stage,
                **run.resolved,
                **({"sampling": run.config.sampling.model_dump()} if isinstance(run.config, LanguageConfig) else {}),
            },
        )
        if run.resumed is not None:
            before = read_json(file) if file.is_file() else None
            if before is None:
                run.say(f"warning: {file} is gone, so data and models are not compared with those of the checkpoint")
            require_same_inputs(before, manifest, run.resumed, run.config)
        write_json(file, manifest)

    run.on_main(write)


def require_exportable(run: Run[Any], trained: HasModel) -> None:
    """Refuses, before the first step, a model that could not be exported after the last; must be called by all ranks.

    Raises: ModelError or ArtifactError on every rank.
    """
    dtype = run.config.model.dtype
    run.say(f"export: {run.on_main(lambda: prove_export(trained.model, run.folder.path, dtype=dtype))}")


def export(
    run: Run[Any],
    trained: Exportable,
    tokenizer: ChatTokenizer,
    probe: PackedRow,
    *,
    base_path: str,
    score_scale: float = 1.0,
    score_offset: float = 0.0,
    files: Mapping[str, Any] | None = None,
) -> None:
    """Writes run.dir/model with the manifest and `files` (JSON) inside, and verifies it by a reload.

    The reload reads the first 64 tokens of `probe`, each of which is compared: on rank 0's device, or on its CPU where
    the device has no room for the model a second time.
    """
    probe = first_tokens(probe, PROBE_TOKENS)
    expected: Tensor = trained.infer(probe) * score_scale + score_offset
    weights = trained.state_dict()
    dtype = run.config.model.dtype
    scalar = isinstance(trained.model, PackedScalarModel)
    sampling: SamplingSection | None = None if scalar else run.config.sampling

    def write() -> float:
        save_model(
            trained.model,
            weights,
            run.folder.model,
            tokenizer,
            dtype=dtype,
            base_path=base_path,
            sampling=sampling,
            score_scale=score_scale,
            score_offset=score_offset,
        )
        difference = check_export(
            run.folder.model, probe, expected, scalar=scalar, dtype=dtype, device=run.ranks.device
        )
        shutil.copy(run.folder.path / "manifest.json", run.folder.model / "manifest.json")
        for name, content in (files or {}).items():
            write_json(run.folder.model / name, content)
        return difference

    difference = run.on_main(write)
    run.say(f"{run.folder.model}: reloaded, differs from the live model by at most {difference:.1e}")
