"""Builds docker/Dockerfile without a Docker engine or an image registry, and runs the quickstart in the image.

The base is this machine's own distribution, made by debootstrap, with the CPU build of torch where pip finds one. apt
and pip use the package indexes this machine is set up for: their settings are mounted for the build and stay out of
the image. Everything lies in one folder, which is removed at the end, whatever happens.

Needs root, `apt-get install buildah debootstrap`, 12 GB of disk and about half an hour on two cores; no GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "localhost/base", "localhost/rlhf"
EXTRAS = "llm,pii,report,serve,ui"  # `gpu` would bring kernels that nothing here can run
USER_ID = 1000
NEEDED_BYTES = 12 * 10**9
PIP_SETTINGS = ("index-url", "extra-index-url", "find-links", "cert", "trusted-host", "proxy", "default-timeout")


class Buildah:
    """buildah with its images and containers under `work`, in nobody's way."""

    def __init__(self, work: Path) -> None:
        store = ("--root", str(work / "store"), "--runroot", str(work / "state"), "--storage-driver", "vfs")
        self.command = ("buildah", *store)
        self.environment = {**os.environ, "TMPDIR": str(work)}

    def run(self, *arguments: str) -> None:
        """Runs to the end, its output shown."""
        call((*self.command, *arguments), self.environment)

    def read(self, *arguments: str) -> str:
        """Its standard output."""
        return output(*self.command, *arguments, environment=self.environment)


def output(*command: str, environment: dict[str, str] | None = None) -> str:
    """What a short command writes to its standard output."""
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def call(command: tuple[str, ...], environment: dict[str, str] | None = None) -> None:
    """Runs a command in a process namespace of its own: what it started ends with it, and it ends with us."""
    apart = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    status = subprocess.run((*apart, *command), env=environment, check=False).returncode
    if status:
        sys.exit(f"{' '.join(command[:8])} ... ended with status {status}")


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A folder that is gone at the end, with all that is mounted in it."""
    work = Path(tempfile.mkdtemp(prefix="rlhf-container-", dir=parent))
    try:
        yield work
    finally:
        unmount(work)
        shutil.rmtree(work)


def unmount(folder: Path) -> None:
    """Unmounts what a killed debootstrap leaves (its /proc): removing a tree must not descend into a mount."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((name for name in points if name.startswith(f"{folder}/")), reverse=True):
        subprocess.run(("umount", "--lazy", point), check=True)


# What this machine's package managers are set up for


def pip_settings() -> dict[str, str]:
    """pip's settings here, from its files and its environment."""
    return parse_pip_settings(output(sys.executable, "-m", "pip", "config", "list"))


def parse_pip_settings(listed: str) -> dict[str, str]:
    """The settings that say where packages come from, of `pip config list`; the environment's win, as in pip."""
    found: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in PIP_SETTINGS:
            found[key] = value.strip("'\"").replace("\\n", " ")
    return found


def local_folders(settings: dict[str, str]) -> list[Path]:
    """The folders that pip's settings name; of an index its parent, since its pages point to files beside it."""
    words = [word for key, value in settings.items() if key != "cert" for word in value.split()]
    folders = []
    for word in words:
        is_url = word.startswith("file://")
        path = Path(urlsplit(word).path) if is_url else Path(word)
        if path.is_absolute() and path.exists():
            folders.append(path.parent if is_url else path)
    return sorted(set(folders))


def pip_mounts(work: Path) -> list[str]:
    """Volumes that give the build this machine's pip settings."""
    settings = pip_settings()
    mounts = [f"{folder}:{folder}:ro" for folder in local_folders(settings)]
    if "cert" in settings:
        # Not in its own place, which the base's packages write.
        mounts.append(f"{settings['cert']}:/run/pip-cert.pem:ro")
        settings["cert"] = "/run/pip-cert.pem"
    config = work / "pip.conf"
    config.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    return [*mounts, f"{config}:/etc/pip.conf:ro"]


def apt_sources() -> tuple[str, list[str]]:
    """This machine's release, and the sources.list lines of its own distribution, as apt knows them."""
    release = dict(line.partition("=")[::2] for line in Path("/etc/os-release").read_text().splitlines())
    codename, distribution = release["VERSION_CODENAME"].strip('"'), release["ID"].strip('"')
    query = ("$(REPO_URI)", "$(CODENAME)", "$(COMPONENT)", "$(ORIGIN)")
    listed = output("apt-get", "indextargets", "--format", " ".join(query), "Created-By: Packages")
    rows = [line.split(maxsplit=3) for line in listed.splitlines()]
    lines = [f"deb {row[0]} {row[1]} {row[2]}" for row in rows if row[3:] and row[3].casefold() == distribution]
    lines.sort(key=lambda line: line.split()[2:] != [codename, "main"])  # stable: the release itself comes first
    if not lines:
        sys.exit(f"apt knows no archive of {distribution} {codename}: run apt-get update")
    return codename, lines


def apt_mounts(work: Path) -> list[str]:
    """Volumes that give the build this machine's apt sources, and how it fetches from them."""
    dumped = output("apt-config", "dump").splitlines()
    fetching = [line for line in dumped if line.startswith("Acquire::") and "IndexTargets" not in line]
    (work / "apt.conf").write_text("\n".join(fetching) + "\n")
    (work / "sources.list").write_text("\n".join(apt_sources()[1]) + "\n")
    mounts = [f"{work}/apt.conf:/etc/apt/apt.conf.d/99machine:ro", f"{work}/sources.list:/etc/apt/sources.list:ro"]
    access = Path("/etc/apt/auth.conf.d")
    return [*mounts, f"{access}:{access}:ro"] if access.is_dir() else mounts


# The steps


def make_base(buildah: Buildah) -> None:
    """A minimal system as an image. As the default base does, it gives our user's number to another user."""
    codename, lines = apt_sources()
    container = buildah.read("from", "scratch")
    folder = buildah.read("mount", container)
    call(("debootstrap", "--variant=minbase", codename, folder, lines[0].split()[1]))
    call(("chroot", folder, "useradd", "--create-home", "--uid", str(USER_ID), "ubuntu"))
    buildah.run("umount", container)
    buildah.run("commit", "--quiet", "--rm", container, BASE)


def build(buildah: Buildah, work: Path) -> None:
    """docker/Dockerfile as it is, on that base."""
    volumes = [word for mount in (*pip_mounts(work), *apt_mounts(work)) for word in ("--volume", mount)]
    arguments = ("--build-arg", f"BASE={BASE}", "--build-arg", f"EXTRAS={EXTRAS}")
    options = ("--isolation", "chroot", "--layers=false", "--pull-never", *arguments, *volumes)
    buildah.run("bud", *options, "--file", str(ROOT / "docker" / "Dockerfile"), "--tag", IMAGE, str(ROOT))


def quickstart(buildah: Buildah, work: Path) -> dict:
    """The image's default command, then the quickstart into a mounted folder; returns its summary."""
    runs = work / "runs"
    runs.mkdir()
    os.chown(runs, USER_ID, USER_ID)
    container = buildah.read("from", "--pull-never", IMAGE)
    inside = ("run", "--isolation", "chroot", "--volume", f"{runs}:/opt/rlhf/runs", "--env", "HF_HUB_OFFLINE=1")
    default = json.loads(buildah.read("inspect", "--type", "image", IMAGE))["OCIv1"]["config"]["Cmd"]
    shown = buildah.read(*inside, container, "--", *default)
    if "quickstart" not in shown:
        sys.exit(f"the image's default command {default} does not show the commands:\n{shown}")
    if (user := buildah.read(*inside, container, "--", "id", "--user")) != str(USER_ID):
        sys.exit(f"the image runs as user {user}, not as {USER_ID}")
    buildah.run(*inside, container, "--", "rlhf", "quickstart", "--out", "runs/q")
    return json.loads((runs / "q" / "summary.json").read_text(encoding="utf-8"))


def check(summary: dict) -> None:
    """PPO moved the register the way the reward model pays for."""
    before, after = summary["ppo"]["before"]["polite"], summary["ppo"]["after"]["polite"]
    if not after > before + 0.2:
        sys.exit(f"polite sentences: {before:.3f} before PPO, {after:.3f} after; expected a clear rise")


def main() -> None:
    """Base, image, quickstart; prints how long each took and the image's size."""
    parser = argparse.ArgumentParser(description="build docker/Dockerfile without Docker and run the quickstart in it")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the images lie meanwhile")
    parser.add_argument("--no-quickstart", action="store_true", help="build, and stop there")
    options = parser.parse_args()
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        sys.exit("needs root, and: apt-get install buildah debootstrap")
    if (free := shutil.disk_usage(options.work).free) < NEEDED_BYTES:
        sys.exit(f"{options.work} has {free / 1e9:.0f} GB free, and the images take up to {NEEDED_BYTES / 1e9:.0f}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    os.nice(10)
    with work_folder(options.work) as work:
        buildah = Buildah(work)
        times = [time.perf_counter()]
        make_base(buildah)
        times.append(time.perf_counter())
        build(buildah, work)
        times.append(time.perf_counter())
        sys.stdout.write(buildah.read("images", "--format", "{{.Name}} {{.Size}}") + "\n")
        if not options.no_quickstart:
            check(quickstart(buildah, work))
            times.append(time.perf_counter())
    seconds = [f"{later - earlier:.0f}" for earlier, later in itertools.pairwise(times)]
    sys.stdout.write(f"base, image, quickstart: {', '.join(seconds)} s\n")


if __name__ == "__main__":
    main()
