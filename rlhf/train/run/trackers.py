"""Where a run's metrics go beside metrics.jsonl: TensorBoard, Weights & Biases, Trackio, MLflow. Rank 0 only.

A run keeps its name there (that of its folder) and its whole configuration, and a resumed run continues its own entry:
trackers.json in the run folder holds the identity that each service gave it. Where the services keep what they get, on
this machine or on a server, is their own to know: WANDB_MODE, MLFLOW_TRACKING_URI, TRACKIO_SERVER_URL. Without those
MLflow writes RUN/mlflow.db, and the files of W&B are in RUN/wandb.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rlhf.artifacts.files import read_json, write_json
from rlhf.config.sections import LogSection
from rlhf.errors import ConfigError, require_packages

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}
IDENTITIES = "trackers.json"
LONGEST_MLFLOW_VALUE = 6000  # characters


class Tracker(Protocol):
    """One service, open for one run. `identity` is what continues the run later."""

    identity: str

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Records the metrics of a step."""

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Records sample answers."""

    def event(self, step: int, text: str) -> None:
        """Records a tripwire or the like."""

    def report(self, name: str, card: Mapping[str, Any]) -> None:
        """Records the figures of a report, such as the reward model's card."""

    def close(self, *, failed: bool) -> None:
        """Ends the entry."""


def require_trackers(log: LogSection) -> None:
    """Raises ConfigError for a service whose package is not installed. Imports nothing."""
    for name in log.to:
        others = [other for other in log.to if other != name]
        without = f"log.to=[{', '.join(others)}]"
        require_packages(
            PACKAGES[name], extra="trackers", needed_by=f"log.to={name}", where="log.to", otherwise=without
        )


def open_trackers(folder: Path, log: LogSection, config: Mapping[str, Any], *, start: int) -> dict[str, Tracker]:
    """The services of `log.to`, by name, each continued where the run folder knows it.

    Args:
        folder: the run's folder, whose name is that of the run.
        config: the whole configuration.
        start: the step after which the run begins.
    """
    require_trackers(log)
    file = folder / IDENTITIES
    known: dict[str, str] = read_json(file) if file.is_file() else {}
    opened: dict[str, Tracker] = {}
    for name in log.to:
        try:
            opened[name] = _SERVICES[name](folder, log.project, config, known.get(name, ""), start)
        except Exception as error:
            raise ConfigError(
                f"{name} cannot be opened: {type(error).__name__}: {error}",
                where="log.to",
                fix=f"correct its settings, or leave {name} out of log.to",
            ) from error
    identities = {name: tracker.identity for name, tracker in opened.items() if tracker.identity}
    if {**known, **identities} != known:
        write_json(file, {**known, **identities})
    return opened


def figures_of(card: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The numbers of a report by dotted name, such as report_card/length.correlation."""
    found: dict[str, float] = {}
    for key, value in card.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= figures_of(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


class TensorBoard:
    """RUN/tensorboard; steps after the one a run is resumed from are hidden."""

    identity = ""

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any], identity: str, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._step = start
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._step = step
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # otherwise a killed run loses up to two minutes of it

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        for number, row in enumerate(rows):
            text = "\n\n".join(f"**{key}** {_as_text(value)}" for key, value in row.items())
            self._writer.add_text(f"samples/{number}", text, step)
        self._writer.flush()

    def event(self, step: int, text: str) -> None:
        self._writer.add_text("events", text, step)

    def report(self, name: str, card: Mapping[str, Any]) -> None:
        self._writer.add_text(
            name, f"```\n{json.dumps(card, ensure_ascii=False, indent=2, default=str)}\n```", self._step
        )

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases. The axis of charts is `step`, because its own steps cannot go back, as a resumed run does."""

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any], identity: str, start: int) -> None:
        import wandb

        self._wandb, self.identity = wandb, identity or uuid.uuid4().hex[:12]
        self._run: Any = wandb.init(
            project=project,
            name=folder.name,
            id=self.identity,
            resume="allow",
            dir=str(folder),
            config=dict(config),
            settings=wandb.Settings(silent=True),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[_as_text(row.get(key, "")) for key in columns] for row in rows]
        self._run.log({"step": step, "samples": self._wandb.Table(columns=columns, data=data)})

    def event(self, step: int, text: str) -> None:
        self._run.log({"step": step, "events": self._wandb.Html(f"<p>{text}</p>")})

    def report(self, name: str, card: Mapping[str, Any]) -> None:
        self._run.summary.update(figures_of(card, f"{name}/"))

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class Trackio:
    """Trackio, whose runs are continued by their name; the identity is that name."""

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any], identity: str, start: int) -> None:
        import trackio

        self._trackio, self.identity = trackio, identity or folder.name
        resume = "must" if identity else "never"
        plain = json.loads(json.dumps(config, default=str))
        self._run: Any = trackio.init(project=project, name=self.identity, config=plain, resume=resume, embed=False)
        self._step = start

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._step = step
        self._run.log(dict(values), step=step)

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        import pandas

        table = pandas.DataFrame([{key: _as_text(value) for key, value in row.items()} for row in rows])
        self._run.log({"samples": self._trackio.Table(dataframe=table)}, step=step)

    def event(self, step: int, text: str) -> None:
        self._run.alert(title="tripwire", text=text, step=step)

    def report(self, name: str, card: Mapping[str, Any]) -> None:
        self._run.log(figures_of(card, f"{name}/"), step=self._step)

    def close(self, *, failed: bool) -> None:
        self._run.finish()


class Mlflow:
    """MLflow: the project is the experiment, keys of the configuration are parameters, texts are artifacts."""

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any], identity: str, start: int) -> None:
        import mlflow

        if not mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        self._client: Any = mlflow.MlflowClient()
        if identity:
            self._client.update_run(identity, status="RUNNING")
            self.identity = identity
            return
        known = self._client.get_experiment_by_name(project)
        place = (folder / "mlflow").resolve().as_uri() if str(mlflow.get_tracking_uri()).startswith("sqlite") else None
        experiment = known.experiment_id if known else self._client.create_experiment(project, artifact_location=place)
        self.identity = str(self._client.create_run(experiment, run_name=folder.name).info.run_id)
        for key, value in _flat(config, ""):
            self._client.log_param(self.identity, key, _as_text(value)[:LONGEST_MLFLOW_VALUE])

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self._client.log_batch(self.identity, [Metric(name, value, now, step) for name, value in values.items()])

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self._client.log_dict(self.identity, [dict(row) for row in rows], f"samples/step-{step:06d}.json")

    def event(self, step: int, text: str) -> None:
        self._client.log_text(self.identity, text, f"events/step-{step:06d}.txt")

    def report(self, name: str, card: Mapping[str, Any]) -> None:
        self._client.log_dict(self.identity, dict(card), f"{name}.json")
        for figure, value in figures_of(card, f"{name}/").items():
            self._client.log_metric(self.identity, figure, value)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self.identity, "FAILED" if failed else "FINISHED")


def _flat(config: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """(dotted key, value) of every key of a nested configuration."""
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        nested = isinstance(value, Mapping) and value
        found += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return found


_SERVICES: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio, "mlflow": Mlflow}
