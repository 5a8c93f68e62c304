import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rlhf.artifacts.run_folder import RunFolder
from rlhf.cli.job_flags import add_job_flags, fine_tuning_of
from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import DpoConfig, SftConfig
from rlhf.errors import ArtifactError, ConfigError
from rlhf.serve.access import ApiAccess
from rlhf.serve.errors import add_error_handlers
from rlhf.serve.jobs.config import JobSettings, read_bases, read_job_configs
from rlhf.serve.jobs.launch import hold, is_held
from rlhf.serve.jobs.progress import MetricsTail, reason_of, step_figures
from rlhf.serve.jobs.routes import job_routers
from rlhf.serve.jobs.runner import MAX_ATTEMPTS
from rlhf.serve.jobs.service import FineTuningService
from rlhf.serve.jobs.store import Job
from rlhf.serve.keys import KeyStore

CONFIGS = {
    "sft": "train: {lr: 2.0e-3, epochs: 4, batch_size: 8}\neval: {patience: 2}\ndata: {eval: operators-own.jsonl}",
    "reward": "train: {lr: 1.0e-3}",
    "dpo": "train: {lr: 1.0e-5}",
    "ppo": "train: {lr: 1.0e-4, batch_size: 8}\ncritic: {lr: 2.0e-4}\nppo: {rollout_size: 16}",
}
ROWS = {
    "sft": [{"prompt": "뭐 해?", "completion": "책 읽어."}, {"prompt": "왜?", "completion": "재밌어서!"}],
    "reward": [{"prompt": "뭐 해?", "chosen": "책 읽어요.", "rejected": "몰라."}],
}


class Scripted:
    """A launcher whose runs do what the test says: `working` holds the jobs that are alive."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.working: set[str] = set()
        self.error: Exception | None = None

    def start(self, folder: Path, stage: str) -> None:
        if self.error:
            raise self.error
        self.started.append(folder.name)
        self.working.add(folder.name)

    def alive(self, folder: Path) -> bool:
        return folder.name in self.working

    def stop(self, folder: Path) -> None:
        self.working.discard(folder.name)


@dataclass
class Service:
    """A service without its thread: `tick` is one look of the runner."""

    tuning: FineTuningService
    launcher: Scripted
    client: TestClient
    served: dict[str, Path] = field(default_factory=dict)

    def upload(self, rows: list[dict[str, str]] | bytes, **more: Any) -> str:
        content = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
        sent = {"files": {"file": ("rows.jsonl", content)}, "data": {"purpose": "fine-tune"}}
        return str(self.client.post("/v1/files", **sent, **more).json()["id"])

    def create(self, **body: Any) -> dict[str, Any]:
        body = {"model": "tiny", "training_file": body.pop("file", None) or self.upload(ROWS["sft"]), **body}
        answer = self.client.post("/v1/fine_tuning/jobs", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def refused(self, **body: Any) -> dict[str, Any]:
        body = {"model": "tiny", "training_file": body.pop("file", None) or self.upload(ROWS["sft"]), **body}
        answer = self.client.post("/v1/fine_tuning/jobs", json=body)
        assert answer.status_code == 400, answer.text
        return dict(answer.json()["error"])

    def job(self, identifier: str) -> dict[str, Any]:
        return dict(self.client.get(f"/v1/fine_tuning/jobs/{identifier}").json())

    def messages(self, identifier: str) -> list[str]:
        found = self.client.get(f"/v1/fine_tuning/jobs/{identifier}/events", params={"limit": 100}).json()["data"]
        return [event["message"] for event in reversed(found)]

    def tick(self) -> None:
        self.tuning.runner.tick()

    def folder(self, identifier: str) -> Path:
        return self.tuning.runner.folder / identifier

    def run_says(self, identifier: str, *steps: dict[str, float], status: Any = "running", reason: str = "") -> None:
        run = RunFolder(self.folder(identifier) / "run")
        run.path.mkdir(exist_ok=True)
        with run.metrics.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(step) + "\n" for step in steps)
        run.set_state(status, stage="sft", step=len(steps), reason=reason)
        if status != "running":
            self.launcher.working.discard(identifier)

    def finish(self, identifier: str) -> str:
        self.run_says(identifier, {"step": 1, "loss": 2.5, "tokens": 30}, status="finished")
        self.tick()
        return str(self.job(identifier)["fine_tuned_model"])


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services on one folder, as a server that is started again does."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    for stage, text in CONFIGS.items():
        (tmp_path / f"{stage}.yaml").write_text(text)
    made: list[FineTuningService] = []

    def start(access: ApiAccess | None = None, **more: Any) -> Service:
        launcher, served = Scripted(), dict[str, Path]()
        bases, configs = {"tiny": tmp_path / "base"}, {stage: tmp_path / f"{stage}.yaml" for stage in CONFIGS}
        settings = JobSettings(tmp_path / "jobs", configs, bases, launcher, **more)
        tuning = FineTuningService(settings, served.__setitem__)
        tuning.runner.folder.mkdir(exist_ok=True)
        made.append(tuning)
        app = FastAPI()
        add_error_handlers(app)
        for router in job_routers(tuning, access or ApiAccess()):
            app.include_router(router)
        return Service(tuning, launcher, TestClient(app), served)

    yield start
    for tuning in made:
        tuning.store.close()


@pytest.fixture
def service(make: Callable[..., Service]) -> Service:
    return make()


def config_of(service: Service, job: dict[str, Any]) -> SftConfig:
    return load_config(SftConfig, service.folder(job["id"]) / "config.yaml")


# What a job is started with


def test_auto_is_the_operators_configuration(service: Service, tmp_path: Path) -> None:
    job = service.create()
    config = config_of(service, job)
    assert (config.train.lr, config.train.epochs, config.train.batch_size) == (2e-3, 4, 8)
    assert config.model.path == str(tmp_path / "base")
    assert config.run.dir == str(service.folder(job["id"]) / "run")
    assert [source.path for source in config.data.train] == [
        str(tmp_path / "jobs" / "files" / f"{job['training_file']}.jsonl")
    ]
    assert config.data.eval == []  # the operator's own rows are not the client's
    assert config.eval.patience is None
    expected = {"n_epochs": 4, "batch_size": 8, "learning_rate_multiplier": 1.0, "prompt_loss_weight": 0.0}
    assert job["hyperparameters"] == expected
    assert job["method"] == {"type": "supervised", "supervised": {"hyperparameters": expected}}
    assert job["seed"] == config.run.seed


def test_hyperparameters_are_applied(service: Service) -> None:
    wanted = {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 0.5, "prompt_loss_weight": 0.01}
    held_out = service.upload(ROWS["sft"])
    method = {"type": "supervised", "supervised": {"hyperparameters": wanted}}
    for body in ({"method": method}, {"hyperparameters": wanted}):
        job = service.create(**body, validation_file=held_out, seed=5)
        config = config_of(service, job)
        assert (config.train.epochs, config.train.batch_size, config.train.prompt_loss_weight) == (3, 2, 0.01)
        assert config.train.lr == pytest.approx(1e-3)  # 2e-3 x 0.5
        assert config.data.eval[0].path.endswith(f"{held_out}.jsonl")
        assert config.eval.patience == 2
        assert config.run.seed == job["seed"] == 5
        assert job["hyperparameters"] == wanted
        assert job["validation_file"] == held_out


def test_a_policy_is_trained_against_a_reward_job(service: Service) -> None:
    reward = service.create(file=service.upload(ROWS["reward"]), method={"type": "reward"})
    service.tick()
    name = service.finish(reward["id"])
    assert service.served == {}  # a reward model answers nothing
    grader = {"type": "score_model", "name": "r", "input": [], "model": name}
    settings = {"grader": grader, "hyperparameters": {"learning_rate_multiplier": 2}}
    job = service.create(method={"type": "reinforcement", "reinforcement": settings})
    config = load_config(PpoConfig, service.folder(job["id"]) / "config.yaml")
    assert config.reward.path == str(service.folder(reward["id"]) / "run" / "model")
    assert config.actor.path.endswith("base")
    assert (config.train.lr, config.critic.lr) == (pytest.approx(2e-4), pytest.approx(4e-4))
    plain = service.create(method={"type": "ppo", "ppo": {"reward_model": name}})
    assert plain["method"]["ppo"]["grader"]["model"] == name


def test_a_policy_is_trained_on_preferences_alone(service: Service) -> None:
    pairs = service.upload(ROWS["reward"])
    wanted = {"beta": 0.3, "learning_rate_multiplier": 2}
    job = service.create(file=pairs, method={"type": "dpo", "dpo": {"hyperparameters": wanted}})
    config = load_config(DpoConfig, service.folder(job["id"]) / "config.yaml")
    assert config.model.path.endswith("base")
    assert (config.train.lr, config.dpo.beta) == (pytest.approx(2e-5), 0.3)
    assert (job["hyperparameters"]["beta"], job["method"]["type"]) == (0.3, "dpo")
    service.tick()
    name = service.finish(job["id"])
    assert list(service.served) == [name]
    plain = service.create(file=pairs, method={"type": "dpo"})
    assert plain["hyperparameters"]["beta"] == 0.1


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"model": "gpt-4"}, "model", "tiny"),
        ({"file": "file-0"}, "training_file", "No such file"),
        ({"validation_file": "file-0"}, "validation_file", "No such file"),
        ({"method": {"type": "dpo"}}, "training_file", "this job needs rows for dpo"),
        (
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0}}}},
            "method.dpo.hyperparameters.beta",
            "greater",
        ),
        ({"method": {"type": "reinforcement"}}, "method.reinforcement.grader.model", "missing"),
        ({"method": {"type": "ppo", "ppo": {"reward_model": "ft:x"}}}, "method", "ft:x"),
        ({"integrations": [{"type": "wandb"}]}, "integrations", "events"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "greater than 0"),
        ({"hyperparameters": {"batch_size": 1.5}}, "hyperparameters.batch_size", "integer"),
        ({"hyperparameters": {"prompt_loss_weight": 2}}, "hyperparameters.prompt_loss_weight", "less than"),
        ({"hyperparameters": {"learning_rate": 1}}, "hyperparameters.learning_rate", "Unknown parameter"),
        ({"suffix": "x" * 65}, "suffix", "64"),
        ({"seed": -1}, "seed", "0"),
        (
            {"method": {"type": "reward", "reward": {"hyperparameters": {"prompt_loss_weight": 0}}}},
            "training_file",
            "rew",
        ),
    ],
)
def test_what_cannot_be_done_is_400_and_leaves_nothing(
    service: Service, body: dict[str, Any], param: str, message: str
) -> None:
    error = service.refused(**body)
    assert error["param"].startswith(param)
    assert message in error["message"]
    assert service.tuning.store.find(Job) == []
    assert list(service.tuning.runner.folder.iterdir()) == []


def test_settings_the_stage_refuses_are_400(service: Service) -> None:
    reward = service.create(file=service.upload(ROWS["reward"]), method={"type": "reward"})
    service.tick()
    settings = {"reward_model": service.finish(reward["id"]), "hyperparameters": {"batch_size": 7}}
    error = service.refused(method={"type": "ppo", "ppo": settings})
    assert "must divide ppo.rollout_size = 16" in error["message"]


def test_a_bad_file_is_refused_by_line(service: Service) -> None:
    bad = service.upload('{"prompt": "왜?", "completion": "그냥."}\n{"prompt": "왜?"\n'.encode())
    error = service.refused(file=bad)
    assert error["code"] == "invalid_file"
    assert "line 2: invalid JSON" in error["message"]


def test_prompt_loss_weight_is_for_supervised_jobs(service: Service) -> None:
    method = {"type": "reward", "reward": {"hyperparameters": {"prompt_loss_weight": 0.1}}}
    error = service.refused(file=service.upload(ROWS["reward"]), method=method)
    assert error["param"] == "prompt_loss_weight"


# A job's life


def test_a_job_succeeds_and_its_model_is_served(service: Service) -> None:
    job = service.create(suffix="my-friend")
    assert (job["status"], job["fine_tuned_model"], job["finished_at"]) == ("queued", None, None)
    service.tick()
    assert service.job(job["id"])["status"] == "running"
    service.run_says(job["id"], {"step": 1, "loss": 2.5, "tokens": 30})
    service.tick()
    assert service.messages(job["id"])[-1] == "Step 1: training loss=2.5"
    more = {"step": 2, "loss": 2.25, "eval/loss": 2.4, "tokens": 32}
    service.run_says(job["id"], more, status="finished")
    service.tick()
    done = service.job(job["id"])
    name = f"ft:tiny:local:my-friend:{job['id'][-8:]}"
    assert (done["status"], done["fine_tuned_model"], done["trained_tokens"]) == ("succeeded", name, 62)
    assert done["finished_at"] >= done["created_at"]
    assert service.served == {name: service.folder(job["id"]) / "run" / "model"}
    assert service.messages(job["id"]) == [
        f"Created fine-tuning job: {job['id']}",
        "Files validated, the job is in the queue",
        "Fine-tuning job started",
        "Step 1: training loss=2.5",
        "Step 2: training loss=2.25, validation loss=2.4",
        f"New fine-tuned model created: {name}",
        "The job has successfully completed",
    ]
    (result,) = done["result_files"]
    assert service.client.get(f"/v1/files/{result}/content").text == (
        "step,train_loss,valid_loss\n1,2.5,\n2,2.25,2.4\n"
    )
    assert service.client.get(f"/v1/files/{result}").json()["purpose"] == "fine-tune-results"


def test_a_model_can_be_tuned_further(service: Service) -> None:
    first = service.create()
    service.tick()
    name = service.finish(first["id"])
    second = service.create(model=name)
    assert config_of(service, second).model.path == str(service.folder(first["id"]) / "run" / "model")
    service.tick()
    assert service.finish(second["id"]).startswith("ft:tiny:local::")


def test_jobs_run_one_by_one_in_their_order(service: Service) -> None:
    jobs = [service.create()["id"] for _ in range(3)]
    service.tick()
    assert service.launcher.started == jobs[:1]
    service.finish(jobs[0])
    service.tick()
    assert service.launcher.started == jobs[:2]


def test_two_at_a_time(make: Callable[..., Service]) -> None:
    service = make(parallel=2)
    jobs = [service.create()["id"] for _ in range(3)]
    service.tick()
    assert service.launcher.started == jobs[:2]


def test_a_failed_run_says_why(service: Service) -> None:
    job = service.create()["id"]
    service.tick()
    service.run_says(job, status="failed", reason="the tokenizer splits EOS")
    service.tick()
    found = service.job(job)
    assert found["status"] == "failed"
    assert found["error"] == {"code": "run_failed", "message": "the tokenizer splits EOS", "param": None}
    events = service.client.get(f"/v1/fine_tuning/jobs/{job}/events").json()["data"]
    assert (events[0]["level"], events[0]["message"]) == ("error", "The job failed: the tokenizer splits EOS")
    assert service.launcher.started == [job]


def test_a_run_that_is_broken_off_goes_on_and_not_for_ever(service: Service) -> None:
    job = service.create()["id"]
    service.tick()
    service.run_says(job, {"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.4})
    (service.folder(job) / "log.txt").write_text("...\nMemoryError: no room\n")
    for _ in range(MAX_ATTEMPTS):
        service.launcher.working.clear()
        service.tick()
    assert service.launcher.started == [job] * MAX_ATTEMPTS
    assert service.job(job)["status"] == "failed"
    assert service.job(job)["error"]["message"] == "MemoryError: no room"
    assert sum("resumes from its last checkpoint" in message for message in service.messages(job)) == 2


def test_steps_that_a_resumed_run_repeats_are_told_once(service: Service) -> None:
    job = service.create()["id"]
    service.tick()
    steps = [{"step": step, "loss": 3.0 - step} for step in (1, 2, 3)]
    service.run_says(job, *steps[:2])
    service.tick()
    (service.folder(job) / "run" / "metrics.jsonl").unlink()
    service.run_says(job, *steps[:1])
    service.tick()
    service.run_says(job, *steps[1:], status="finished")
    service.tick()
    told = [message for message in service.messages(job) if message.startswith("Step")]
    assert told == [f"Step {step}: training loss={3 - step}" for step in (1, 2, 3)]


def test_a_run_that_cannot_be_started_fails(service: Service) -> None:
    service.launcher.error = ConfigError("sbatch is missing")
    job = service.create()["id"]
    service.tick()
    assert service.job(job)["status"] == "failed"
    assert "sbatch is missing" in service.job(job)["error"]["message"]


def test_cancelling(service: Service) -> None:
    running, waiting = service.create()["id"], service.create()["id"]
    service.tick()
    for job in (waiting, running):
        answer = service.client.post(f"/v1/fine_tuning/jobs/{job}/cancel")
        assert answer.json()["status"] == "cancelled"
        assert answer.json()["finished_at"] is not None
        assert service.messages(job)[-1] == "Fine-tuning job cancelled"
    service.tick()
    assert service.launcher.working == set()
    assert service.launcher.started == [running]
    again = service.client.post(f"/v1/fine_tuning/jobs/{running}/cancel")
    assert again.status_code == 400
    assert "cancelled" in again.json()["error"]["message"]


# A server that is started again


def test_a_new_server_takes_up_what_it_finds(make: Callable[..., Service]) -> None:
    before = make()
    done, running, waiting = (before.create()["id"] for _ in range(3))
    before.tick()
    name = before.finish(done)
    before.tick()
    before.run_says(running, {"step": 1, "loss": 2.0})
    after = make()  # nothing was said to the first one: it is as good as killed
    after.launcher.working.add(running)
    after.tuning.runner.start()
    after.tuning.runner.stop()
    after.tick()
    assert set(after.served) == {name}
    assert [after.job(job)["status"] for job in (done, running, waiting)] == ["succeeded", "running", "queued"]
    assert after.messages(running)[-1] == "Step 1: training loss=2"
    after.finish(running)
    after.tick()
    assert after.launcher.started == [waiting]  # the other one was adopted


def test_a_job_taken_up_and_not_started_is_started(make: Callable[..., Service]) -> None:
    before = make()
    job = before.create()["id"]
    assert before.tuning.store.move(job, "running", only_from=("queued",))
    after = make()
    after.tick()
    assert after.launcher.started == [job]
    assert after.job(job)["status"] == "running"
    assert not any("interrupted" in message for message in after.messages(job))


def test_a_cancelled_run_whose_server_was_killed_is_stopped(make: Callable[..., Service]) -> None:
    before = make()
    job = before.create()["id"]
    before.tick()
    before.client.post(f"/v1/fine_tuning/jobs/{job}/cancel")
    after = make()
    after.launcher.working.add(job)
    after.tuning.runner.start()
    after.tuning.runner.stop()
    after.tick()
    assert after.launcher.working == set()


def test_two_services_do_not_share_a_folder(make: Callable[..., Service]) -> None:
    service = make()
    lock = hold(service.tuning.runner.folder / "jobs.lock")
    assert lock is not None
    with pytest.raises(ArtifactError, match="in use by another service"):
        service.tuning.runner.start()


# Lists, shapes, owners


def test_lists_page_newest_first(service: Service) -> None:
    jobs = [service.create()["id"] for _ in range(3)]
    first = service.client.get("/v1/fine_tuning/jobs", params={"limit": 2}).json()
    assert ([job["id"] for job in first["data"]], first["has_more"]) == ([jobs[2], jobs[1]], True)
    rest = service.client.get("/v1/fine_tuning/jobs", params={"after": jobs[1]}).json()
    assert ([job["id"] for job in rest["data"]], rest["has_more"]) == ([jobs[0]], False)
    path = f"/v1/fine_tuning/jobs/{jobs[0]}/events"
    newest = service.client.get(path, params={"limit": 1}).json()
    assert newest["has_more"] is True
    older = service.client.get(path, params={"limit": 1, "after": newest["data"][0]["id"]}).json()
    assert older["data"][0]["message"].startswith("Created")
    assert older["has_more"] is False


def test_checkpoints(service: Service) -> None:
    job = service.create(suffix="a")["id"]
    service.tick()
    service.run_says(job, *({"step": step, "loss": 3.0 - step} for step in (1, 2, 3)))
    for step in (2, 3):
        folder = service.folder(job) / "run" / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "trainer.json").write_text(json.dumps({"step": step}))
    (folder.parent / ".writing-step-000004").mkdir()
    found = service.client.get(f"/v1/fine_tuning/jobs/{job}/checkpoints").json()["data"]
    assert [(each["step_number"], each["metrics"]) for each in found] == [
        (3, {"step": 3, "train_loss": 0.0}),
        (2, {"step": 2, "train_loss": 1.0}),
    ]
    assert found[0]["fine_tuned_model_checkpoint"] == f"ft:tiny:local:a:{job[-8:]}:ckpt-step-3"


def test_jobs_of_one_key_are_not_anothers(make: Callable[..., Service], tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    mine, other = ({"authorization": f"Bearer {keys.add(name)}"} for name in ("민수", "지현"))
    service = make(ApiAccess(keys))
    file = service.upload(ROWS["sft"], headers=mine)
    body = {"model": "tiny", "training_file": file}
    stolen = service.client.post("/v1/fine_tuning/jobs", json=body, headers=other)
    assert stolen.json()["error"]["code"] == "file_not_found"
    job = service.client.post("/v1/fine_tuning/jobs", json=body, headers=mine).json()
    for path in ("fine_tuning/jobs", "fine-tunes"):
        for tail in ("", "/events"):
            assert service.client.get(f"/v1/{path}/{job['id']}{tail}", headers=other).status_code == 404
        assert service.client.post(f"/v1/{path}/{job['id']}/cancel", headers=other).status_code == 404
        assert service.client.get(f"/v1/{path}", headers=other).json()["data"] == []
    service.tick()
    service.run_says(job["id"], status="finished")
    service.tick()
    name = service.client.get(f"/v1/fine_tuning/jobs/{job['id']}", headers=mine).json()["fine_tuned_model"]
    theirs = service.upload(ROWS["sft"], headers=other)
    stolen = service.client.post("/v1/fine_tuning/jobs", json={"model": name, "training_file": theirs}, headers=other)
    assert stolen.json()["error"]["code"] == "model_not_found"


def test_the_words_of_2023(service: Service) -> None:
    file = service.upload(ROWS["sft"])
    body = {"training_file": file, "n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.1}
    job = service.client.post("/v1/fine-tunes", json=body | {"prompt_loss_weight": 0.01}).json()
    assert set(job) == {
        *("id", "object", "model", "created_at", "updated_at", "events", "fine_tuned_model", "hyperparams"),
        *("organization_id", "result_files", "status", "validation_files", "training_files"),
    }
    assert (job["object"], job["model"], job["status"], job["fine_tuned_model"]) == (
        "fine-tune",
        "tiny",
        "pending",
        None,
    )
    assert job["hyperparams"] == {
        "batch_size": 4,
        "learning_rate_multiplier": 0.1,
        "n_epochs": 2,
        "prompt_loss_weight": 0.01,
    }
    assert [entry["id"] for entry in job["training_files"]] == [file]
    assert (job["validation_files"], job["result_files"]) == ([], [])
    assert all(set(event) == {"object", "created_at", "level", "message"} for event in job["events"])
    assert config_of(service, job).train.lr == pytest.approx(2e-4)
    service.tick()
    name = service.finish(job["id"])
    done = service.client.get(f"/v1/fine-tunes/{job['id']}").json()
    assert (done["status"], done["fine_tuned_model"]) == ("succeeded", name)
    assert done["result_files"][0]["purpose"] == "fine-tune-results"
    assert done["events"][0]["message"].startswith("Created")  # oldest first
    assert service.client.get("/v1/fine-tunes").json()["data"][0]["id"] == job["id"]
    events = service.client.get(f"/v1/fine-tunes/{job['id']}/events").json()
    assert events["data"] == done["events"]


# The operator's words


def test_configurations_by_stage(tmp_path: Path) -> None:
    for name in ("sft", "reward"):
        (tmp_path / f"{name}.yaml").write_text("train: {lr: 1.0e-3}")
    other = shutil.copy(tmp_path / "sft.yaml", tmp_path / "mine.yaml")
    assert read_job_configs([str(tmp_path)]) == {name: tmp_path / f"{name}.yaml" for name in ("sft", "reward")}
    assert read_job_configs([str(tmp_path / "reward.yaml"), f"sft={other}"]) == {
        "reward": tmp_path / "reward.yaml",
        "sft": tmp_path / "mine.yaml",
    }
    assert read_job_configs([]) == dict.fromkeys(("sft", "reward", "ppo", "dpo"))
    for wrong in ([str(other)], [f"ppo={tmp_path}/none.yaml"]):
        with pytest.raises(ConfigError):
            read_job_configs(wrong)


def test_bases(tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    assert read_bases([f"a={tmp_path}/run", f"b={tmp_path}/run/model"]) == {
        "a": tmp_path / "run",
        "b": tmp_path / "run" / "model",
    }
    for wrong in ([f"{tmp_path}/run"], [f"a={tmp_path}"], [f"a={tmp_path}/run"] * 2, ["=x"]):
        with pytest.raises(ConfigError, match="--base"):
            read_bases(wrong)


def described(*words: str, host: str = "127.0.0.1", served: dict[str, str] | None = None) -> JobSettings | None:
    """What `rlhf serve` makes of its flags."""
    parser = argparse.ArgumentParser()
    add_job_flags(parser)
    arguments = parser.parse_args(words, argparse.Namespace(host=host))
    jobs = fine_tuning_of(arguments, served or {}, lambda name, path: None)
    if jobs is None:
        return None
    jobs.store.close()
    return jobs.settings


def test_a_service_for_this_machine_alone_has_jobs_from_what_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    settings = described(served={"friendly": "run", "hub": "owner/name"})
    assert settings is not None
    assert settings.folder == Path("runs/serve")
    assert settings.bases == {"friendly": tmp_path / "run"}
    assert settings.configs == dict.fromkeys(("sft", "reward", "ppo", "dpo"))
    assert described("--base", "mine=run", served={"friendly": "run"}).bases == {"mine": tmp_path / "run"}


def test_jobs_are_asked_for_where_others_may_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert described(host="0.0.0.0") is None
    assert described("--no-jobs") is None
    assert described("--jobs-dir", "here", host="0.0.0.0").folder == Path("here")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ConfigError, match="there are none"):
        described("--no-jobs", "--base", "a=b")


# Small parts


def test_half_a_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    assert list(tail.read()) == []
    path.write_text('{"step": 1}\n{"st')
    assert list(tail.read()) == [{"step": 1}]
    path.write_text('{"step": 1}\n{"step": 2}\nbroken\n')
    assert list(tail.read()) == [{"step": 2}]


def test_figures_have_the_names_of_the_api() -> None:
    reward = {"step": 2, "loss": 0.5, "reward_model/accuracy": 0.75, "eval/accuracy": 0.625, "lr": 0.1}
    assert step_figures(reward) == {"step": 2, "train_loss": 0.5, "train_accuracy": 0.75, "valid_accuracy": 0.625}
    dpo = {"step": 2, "loss": 0.5, "preference/accuracy": 0.75, "eval/preference_loss": 0.6, "eval/accuracy": 0.625}
    assert step_figures(dpo) == step_figures(reward) | {"valid_loss": 0.6}
    ppo = {"step": 3, "loss": 0.1, "objective/reward": 1.5, "eval/reward": 1.25, "objective/kl": 0.5}
    assert step_figures(ppo) == {"step": 3, "train_loss": 0.1, "train_mean_reward": 1.5, "valid_mean_reward": 1.25}


def test_the_reason_is_the_last_error_of_the_log(tmp_path: Path) -> None:
    assert reason_of(tmp_path) == "the run left no log"
    (tmp_path / "log.txt").write_text(
        "[2026-11-22 10:00:00,000] [INFO] start\nConfigError: a.yaml:1  train.lr = x\n  expected: a number\n"
        "[2026-11-22 10:00:01,000] [ERROR] exits with return code = 1\n"
    )
    assert reason_of(tmp_path) == "ConfigError: a.yaml:1  train.lr = x\n  expected: a number"


def test_a_lock_is_one_processs(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    assert not path.exists()
    descriptor = hold(path)
    assert descriptor is not None
    assert hold(path) is None
    assert is_held(path)
    os.close(descriptor)
    assert not is_held(path)
