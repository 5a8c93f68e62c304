"""A real Slurm on this machine: munge, one controller and two virtual nodes, under one folder, ended by process id."""

from __future__ import annotations

import getpass
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.launcher import ENVIRONMENT, REPOSITORY, free_port

NODES = ("n1", "n2")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait=5
ReturnToService=2
{nodes}
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 State=UNKNOWN"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")


@dataclass(frozen=True)
class Slurm:
    """A running cluster; `environment` points Slurm's commands at it."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *command: str | Path, env: Mapping[str, str] | None = None) -> str:
        """What a command prints, started in the checkout.

        Raises: AssertionError with its message when it fails.
        """
        done = subprocess.run(
            [str(word) for word in command],
            env={**self.environment, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=REPOSITORY,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What the controller knows of a job, by field."""
        words = self.run("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str, *, timeout: float = 600) -> dict[str, str]:
        """The job once it has ended."""
        wait_until(lambda: self.job(number)["JobState"] in ENDED, f"job {number} ended", timeout=timeout)
        return self.job(number)


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Starts the cluster and waits until both nodes are idle; ends every daemon it started."""
    configuration = _write(folder)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", "/sbin"])
    environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1", "PATH": path, "SLURM_CONF": str(configuration)}
    daemons: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        with (folder / f"daemon-{len(daemons)}.txt").open("wb") as log:
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))

    try:
        # In this order: the controller asks munge, the nodes ask the controller.
        start("munged", "--foreground", "--force", *_munge_options(folder))
        wait_until((folder / "munge.socket").exists, "munged")
        start("slurmctld", "-D", "-f", str(configuration))
        for name in NODES:
            start("slurmd", "-D", "-N", name, "-f", str(configuration))
        cluster = Slurm(folder, environment)
        wait_until(lambda: _idle(cluster), "both nodes are idle")
        try:
            yield cluster
        finally:
            _cancel_all(cluster)
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _write(folder: Path) -> Path:
    folder.chmod(0o755)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(64))
    host = socket.gethostname()
    nodes = "\n".join(NODE.format(name=name, host=host, port=free_port()) for name in NODES)
    text = CONFIGURATION.format(
        host=host, user=getpass.getuser(), folder=folder, controller_port=free_port(), nodes=nodes
    )
    path = folder / "slurm.conf"
    path.write_text(text)
    return path


def _munge_options(folder: Path) -> list[str]:
    names = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid"}
    names |= {"log-file": "munge.log", "seed-file": "munge.seed"}
    return [f"--{option}={folder / name}" for option, name in names.items()]


def _idle(cluster: Slurm) -> bool:
    try:
        return cluster.run("sinfo", "--noheader", "--format=%D %t") == f"{len(NODES)} idle"
    except AssertionError:
        return False


def _cancel_all(cluster: Slurm) -> None:
    """Ends what a failed test left: processes of a job outlive the daemons."""
    cluster.run("scancel", "--quiet", f"--user={getpass.getuser()}")
    wait_until(lambda: cluster.run("squeue", "--noheader") == "", "all jobs have ended")


def wait_until(condition: Callable[[], Any], what: str, *, timeout: float = 60) -> None:
    """Waits for `condition`."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.2)
