"""What of a machine does not fit together, each with its fix. Pure functions of `MachineFacts`."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.version import Version

from rlhf.doctor.checks import Check
from rlhf.doctor.machine import MIB, MachineFacts
from rlhf.engine.accelerator import cpu_asked_for

# Oldest driver by CUDA major version, table 1 of
# docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
SHARED_MEMORY_PER_RANK = 64 * MIB  # DeepSpeed's buffer on CPUs; NCCL's segments are smaller
RESTART = "restart the container with --shm-size 8g, or mount a larger tmpfs there"


def misfits(facts: MachineFacts) -> list[Check]:
    """Every check, passed ones too."""
    checks = [_gpu_used(facts), _driver(facts), *_compiled_for(facts), *_versions(facts)]
    return [*checks, *_torchvision(facts), _shared_memory(facts), _compiler(facts)]


def _gpu_used(facts: MachineFacts) -> Check:
    """A GPU that is there and not used: by torch, by DeepSpeed, or in this container."""
    if facts.cards and facts.accelerator == "cuda":
        return Check("GPU in use", "passed", f"{len(facts.cards)} seen by torch, and DeepSpeed chooses them")
    if facts.device_files:
        return _gpu_unused(facts)
    if facts.driver:
        said = f"driver {facts.driver} is loaded, and no /dev/nvidia* is in this container"
        return Check("GPU in use", "info", f"{said}: to use the GPUs, start it with --gpus all")
    return Check("GPU in use", "info", "there is no NVIDIA GPU: stages run on the CPU")


def _gpu_unused(facts: MachineFacts) -> Check:
    """Why: by a variable, by torch's build, or by the driver."""
    name, devices = "GPU in use", ", ".join(facts.device_files)
    asked = cpu_asked_for(facts.environment)
    if asked.startswith("DS_ACCELERATOR"):
        return Check(name, "info", f"{devices} is left unused, as {asked} asks")
    if asked:
        said = f"{asked} hides {devices}; the `deepspeed` launcher may set it anew"
        return Check(name, "failed", said, "unset CUDA_VISIBLE_DEVICES, or set DS_ACCELERATOR=cpu to train on the CPU")
    if not facts.torch_cuda:
        said = f"{devices} is there, and torch {facts.torch} is built without CUDA"
        return Check(name, "failed", said, "install torch from pytorch.org's index for your CUDA, not the cpu one")
    said = f"{devices} is there; torch sees {len(facts.cards)} GPUs and DeepSpeed chooses {facts.accelerator}"
    fix = "see `driver and torch`; `python -c 'import torch; torch.zeros(1).cuda()'` prints torch's own reason"
    return Check(name, "failed", said, fix)


def _driver(facts: MachineFacts) -> Check:
    name = "driver and torch"
    if not facts.driver or not facts.torch_cuda:
        return Check(name, "skipped", "no driver is loaded" if facts.torch_cuda else "torch is built without CUDA")
    oldest = OLDEST_DRIVER.get(int(facts.torch_cuda.partition(".")[0]))
    if oldest is None:
        known = ", ".join(str(each) for each in OLDEST_DRIVER)
        return Check(name, "skipped", f"CUDA {facts.torch_cuda} is not in the table of CUDA {known}")
    said = f"driver {facts.driver}; torch's CUDA {facts.torch_cuda} needs {oldest} or newer"
    if int(facts.driver.partition(".")[0]) >= oldest:
        return Check(name, "passed", said)
    older = [cuda for cuda, least in OLDEST_DRIVER.items() if int(facts.driver.partition(".")[0]) >= least]
    instead = f", or a torch built with CUDA {max(older)}" if older else ""
    return Check(name, "failed", said, f"install driver {oldest} or newer{instead}")


def _compiled_for(facts: MachineFacts) -> Iterator[Check]:
    """Whether torch has kernels for each kind of card: of its major version, and not of a later minor one."""
    for card in dict.fromkeys(facts.cards):
        major, minor = card.capability
        compiled = [_capability(each) for each in facts.architectures if each.startswith("sm_")]
        runs = any(each[0] == major and each[1] <= minor for each in compiled)
        said = f"{card.name} is sm_{major}{minor}; torch has {', '.join(facts.architectures)}"
        fix = "install a torch whose builds include this card"
        yield Check("torch's kernels", "passed" if runs else "failed", said, "" if runs else fix)


def _capability(architecture: str) -> tuple[int, int]:
    digits = "".join(letter for letter in architecture.partition("_")[2] if letter.isdigit())
    return int(digits[:-1]), int(digits[-1])


def _versions(facts: MachineFacts) -> Iterator[Check]:
    """Installed versions against this project's own ranges; an extra that is not installed is not missed."""
    if not facts.requirements:
        yield Check("versions", "skipped", "this project is not installed, so that its ranges are not known")
        return
    wrong = []
    for requirement in map(Requirement, facts.requirements):
        installed = facts.versions.get(requirement.name, "")
        if not installed and requirement.marker is None:
            wrong.append((requirement, "not installed"))
        elif installed and not requirement.specifier.contains(installed, prereleases=True):
            wrong.append((requirement, installed))
    for requirement, found in {str(each.specifier) + each.name: (each, found) for each, found in wrong}.values():
        wanted = f"{requirement.name}{requirement.specifier}"
        yield Check(
            "versions", "failed", f"{requirement.name} is {found}; {wanted} is needed", f"pip install '{wanted}'"
        )
    if not wrong:
        yield Check("versions", "passed", "every installed requirement is in its range")


def _torchvision(facts: MachineFacts) -> Iterator[Check]:
    """transformers imports torchvision where it is there; one for another torch fails at that import."""
    if not facts.torchvision_needs:
        return
    needs = Requirement(facts.torchvision_needs).specifier
    fits = needs.contains(Version(facts.torch).public, prereleases=True)
    said = f"torchvision needs torch{needs}, and torch is {facts.torch}"
    fix = "pip uninstall torchvision (nothing here needs it), or install the one of this torch"
    yield Check("torchvision", "passed" if fits else "failed", said, "" if fits else fix)


def _shared_memory(facts: MachineFacts) -> Check:
    disk, needed = facts.shared_memory, facts.ranks * SHARED_MEMORY_PER_RANK
    said = (
        f"{disk.free / MIB:,.0f} MiB of {disk.size / MIB:,.0f} free; {facts.ranks} ranks take {needed / MIB:,.0f} MiB"
    )
    if disk.free >= needed:
        return Check("/dev/shm", "passed", said)
    full = f"remove what lies in {disk.path} (ls -la {disk.path})"
    return Check("/dev/shm", "failed", said, full if disk.size >= 2 * needed else RESTART)


def _compiler(facts: MachineFacts) -> Check:
    """g++ and ninja build DeepSpeed's ops: communication on CPUs, and Adam of an offloaded optimizer."""
    missing = [name for name in ("g++", "ninja") if not facts.tool(name).path]
    needed = "deepspeed.offload_optimizer=true" if facts.cards else "every stage on the CPU"
    if not missing:
        return Check("compiler", "passed", "g++ and ninja are there; nvcc is not needed")
    ways = {"g++": "apt-get install g++", "ninja": "pip install ninja"}
    fix = " and ".join(ways[name] for name in missing)
    return Check("compiler", "failed", f"{' and '.join(missing)} not found: {needed} builds an op with it", fix)
