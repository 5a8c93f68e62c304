"""Works through the queue: starts jobs in their order, reports their steps, and records how they end.

All its state is in the store and in the jobs' folders, so a server that was killed continues where it was: a run that
is still alive is watched again, one that was interrupted resumes from its last checkpoint.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.load import dump_config
from rlhf.config.schema import StageConfig
from rlhf.errors import ArtifactError, RlhfError
from rlhf.serve.jobs.config import JobSettings
from rlhf.serve.jobs.file_store import FileStore
from rlhf.serve.jobs.launch import hold
from rlhf.serve.jobs.progress import MetricsTail, all_steps, reason_of, result_table, step_figures, step_message
from rlhf.serve.jobs.store import Job, JobStore

POLL_S = 0.5
MAX_ATTEMPTS = 3
STOPPED = "stopped"  # an empty file in the folder of a cancelled job whose run was ended
AddModel = Callable[[str, Path], object]


class JobRunner:
    """One thread over one jobs folder.

    Args:
        settings: its `folder` gets a `jobs` folder with one subfolder per job; `jobs.lock` in it refuses a second
            service.
        add_model: puts a finished language model into service under its id.
    """

    def __init__(self, settings: JobSettings, store: JobStore, files: FileStore, add_model: AddModel) -> None:
        self.folder, self._store, self._files = settings.folder.resolve() / "jobs", store, files
        self._launcher, self._parallel, self._add_model = settings.launcher, settings.parallel, add_model
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._tails: dict[str, MetricsTail] = {}
        self._cancelled: list[str] = []  # jobs whose runs are to be stopped

    def folder_of(self, job: Job) -> Path:
        return self.folder / job.id

    def run_of(self, job: Job) -> RunFolder:
        return RunFolder(self.folder_of(job) / "run")

    def prepare(self, job_id: str, config: StageConfig) -> None:
        """Creates a job's folder, before the job is stored."""
        folder = self.folder / job_id
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")

    def start(self) -> None:
        """Locks the folder, serves the finished models, and works until `stop`.

        Raises: ArtifactError when another service has the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = hold(self.folder / "jobs.lock")  # never closed: held until this process ends
        if lock is None:
            raise ArtifactError(
                f"{self.folder} is in use by another service",
                where="--jobs-dir",
                fix="choose another --jobs-dir, or --no-jobs",
            )
        for job in reversed(self._store.find(Job, status="succeeded")):
            self._serve(job, str(job.fine_tuned_model))
        cancelled = [job.id for job in self._store.find(Job, status="cancelled")]
        self._cancelled = [job_id for job_id in cancelled if not (self.folder / job_id / STOPPED).is_file()]
        self._thread = threading.Thread(target=self._work, name="job-runner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; runs continue by themselves."""
        self._ending.set()
        self.wake()
        if self._thread is not None:
            self._thread.join()

    def wake(self) -> None:
        self._wake.set()

    def cancel(self, job: Job) -> bool:
        """Ends a job that has not ended; False when it has."""
        with self._store.change():
            done = self._store.move(job.id, "cancelled", only_from=("queued", "running"))
            if done:
                self._store.add_event(job.id, "Fine-tuning job cancelled")
        if done:
            self._cancelled.append(job.id)
            self.wake()
        return done

    def _work(self) -> None:
        self._files.recover()
        while not self._ending.is_set():
            self._wake.clear()
            try:
                self.tick()
            except (RlhfError, OSError, ValueError) as error:  # tried again at the next look
                sys.stderr.write(f"jobs: {type(error).__name__}: {error}\n")
                sys.stderr.flush()
            self._wake.wait(POLL_S)

    def tick(self) -> None:
        for job_id in list(self._cancelled):
            self._launcher.stop(self.folder / job_id)
            (self.folder / job_id / STOPPED).touch()
            self._cancelled.remove(job_id)
        for job in self._store.find(Job, status="running"):
            self._follow(job)
        free = self._parallel - len(self._store.find(Job, status="running"))
        for job in self._store.find(Job, status="queued")[::-1][: max(0, free)]:
            if self._store.move(job.id, "running", only_from=("queued",)):  # else it was cancelled in the meantime
                self._store.add_event(job.id, "Fine-tuning job started")
                self._launch(job)

    def _launch(self, job: Job) -> None:
        """Starts the stage. The attempt is counted first, so that a run that kills its server ends."""
        if not self._store.move(job.id, "running", only_from=("running",), attempts=job.attempts + 1):
            return  # cancelled in the meantime
        try:
            self._launcher.start(self.folder_of(job), job.stage)
        except (RlhfError, OSError) as error:
            self._fail(job, f"the run could not be started: {error}")

    def _follow(self, job: Job) -> None:
        alive = self._launcher.alive(self.folder_of(job))  # before the log, which is then complete
        run = self.run_of(job)
        tail = self._tails.setdefault(job.id, MetricsTail(run.metrics))
        with self._store.change():
            for values in tail.read():
                figures = step_figures(values)
                self._store.add_event(job.id, step_message(figures), step=figures["step"], data=figures)
        if alive:
            return
        self._tails.pop(job.id, None)
        status = run.status()
        if status == "finished":
            self._succeed(job)
        elif status == "failed" or job.attempts >= MAX_ATTEMPTS:
            self._fail(job, reason_of(self.folder_of(job)))
        else:
            if job.attempts:  # else the server was killed between taking the job and starting it
                message = f"The run was interrupted; it resumes from its last checkpoint (start {job.attempts + 1}"
                self._store.add_event(job.id, f"{message} of at most {MAX_ATTEMPTS})", level="warn")
            self._launch(job)

    def _succeed(self, job: Job) -> None:
        name = model_name(job)
        steps = all_steps(self.run_of(job))
        result = self._files.keep(result_table(steps), "step_metrics.csv", owner=job.owner, purpose="fine-tune-results")
        self._serve(job, name)
        with self._store.change():
            done = self._store.move(
                job.id,
                "succeeded",
                only_from=("running",),
                fine_tuned_model=name,
                result_file=result.id,
                trained_tokens=sum(int(values.get("tokens", 0)) for values in steps),
            )
            if done:
                self._store.add_event(job.id, f"New fine-tuned model created: {name}")
                self._store.add_event(job.id, "The job has successfully completed")

    def _serve(self, job: Job, name: str) -> None:
        """Puts a language model into service; a reward model gives no answers and is only named in jobs."""
        if job.stage == "reward":
            return
        try:
            self._add_model(name, self.run_of(job).model)
        except (RlhfError, OSError, ValueError, RuntimeError) as error:
            self._store.add_event(job.id, f"The model was trained, but cannot be served: {error}", level="warn")

    def _fail(self, job: Job, reason: str) -> None:
        with self._store.change():
            error = {"code": "run_failed", "message": reason, "param": None}
            if self._store.move(job.id, "failed", only_from=("running",), error=error):
                self._store.add_event(job.id, f"The job failed: {reason}", level="error")


def model_name(job: Job) -> str:
    """`ft:BASE:OWNER:SUFFIX:ID`; a base that was fine-tuned itself is named by its own base."""
    base = job.model.split(":")[1] if job.model.startswith("ft:") else job.model
    owner = job.owner.removeprefix("org-")
    return f"ft:{base}:{owner}:{job.request.get('suffix') or ''}:{job.id[-8:]}"
