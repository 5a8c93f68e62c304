"""Whether a configured run would start on this machine: every reason against it, and nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.load import load_config
from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import LanguageConfig, StageConfig
from rlhf.config.stages import STAGES
from rlhf.doctor.checks import Check
from rlhf.doctor.machine import GIB, MachineFacts
from rlhf.errors import ConfigError, RlhfError
from rlhf.plan.fit import check_fits, check_host
from rlhf.plan.launch import launch_line
from rlhf.plan.machine import Device
from rlhf.plan.names import models_of_runs
from rlhf.train.run.before_start import data_problems, missing_models, schedule_problems
from rlhf.train.run.readiness import parent_problems, parents_of

OLDEST_BFLOAT16 = (8, 0)  # compute capability of Ampere


def start_checks(stage: str, path: str, words: Sequence[str], facts: MachineFacts) -> list[Check]:
    """All checks of one configuration file with its `key=value` words."""
    try:
        config = load_config(STAGES[stage].config, path, words)
    except ConfigError as error:
        return [_failed("configuration", problem) for problem in error.problems or (error,)]
    parents = parents_of(config)
    found = [Check("configuration", "passed", f"stage {stage}, every key is valid")]
    found += _several(
        "models", _model_problems(config, path, facts), [f"{key}={each}" for key, each in parents.items()]
    )
    found += _several(
        "data", [*data_problems(config), *schedule_problems(config)], [source.path for source in config.data.train]
    )
    found += [_folder(config), _memory(config, path, facts)]
    where = "on the GPU" if facts.cards else "on the CPU, because there is no GPU"
    found += _several("device", list(_unsupported(config, facts)), [f"{config.model.dtype} {where}"])
    return [*found, _launcher(stage, path, words, facts)]


def _failed(name: str, error: RlhfError) -> Check:
    problem = f"{error.where}: {error.problem}" if error.where else error.problem
    return Check(name, "failed", f"{problem}; expected {error.expected}" if error.expected else problem, error.fix)


def _several(name: str, problems: Sequence[RlhfError], looked_at: Sequence[str]) -> list[Check]:
    """A failed check per problem, or one that passed."""
    if problems:
        return [_failed(name, problem) for problem in problems]
    return [Check(name, "passed", ", ".join(looked_at))]


def _model_problems(config: StageConfig, path: str, facts: MachineFacts) -> list[RlhfError]:
    """Absent models, and what is wrong with those that are there."""
    absent = list(_absent_models(config, path, facts))
    keys = {problem.where for problem in absent}
    return [*absent, *(problem for problem in parent_problems(config) if problem.where not in keys)]


def _absent_models(config: StageConfig, config_path: str, facts: MachineFacts) -> Iterator[RlhfError]:
    """Models that are neither a folder, nor in the hub cache, nor to be had from the hub."""
    if not parents_of(config):
        yield ConfigError("no model is named", where="model.path", fix="set model.path=FOLDER or a hub id")
    yield from missing_models(config, offline=facts.hub_offline, stages=models_of_runs(config_path))


def _folder(config: StageConfig) -> Check:
    folder = RunFolder(config.run.dir)
    holder = folder.holder()
    if holder:
        return Check("run folder", "failed", f"{folder.path} is in use by {holder}", "wait, or choose another run.dir")
    if folder.model.exists() or any(folder.checkpoints.glob("step-*")):
        return Check("run folder", "info", f"{folder.path} holds a run: add --resume auto, or choose another run.dir")
    return Check("run folder", "passed", f"{folder.path} is free")


def _memory(config: StageConfig, path: str, facts: MachineFacts) -> Check:
    """The plan against the free memory of the fullest card; on the CPU against that of the machine."""
    free = min((card.free for card in facts.cards), default=facts.memory_free)
    device: Device = "gpu" if facts.cards else "cpu"
    card = min((card.memory for card in facts.cards), default=0)
    try:
        plan = check_fits(config, facts.ranks, free, device=device, card=card, named=models_of_runs(path))
        if plan is not None:
            check_host(plan, facts.memory_free / max(1, min(facts.ranks, len(facts.cards))))
    except ConfigError as error:
        return Check("memory", "failed", f"on the {device} {error.problem}", error.fix)
    if plan is None:
        return Check("memory", "skipped", "the shape of a model is not known before it is there")
    said = f"about {plan.peak / GIB:.1f} GiB per rank on the {device} planned, {free / GIB:.1f} GiB free"
    tight = "; with full rows it may run out: see `rlhf plan`" if plan.peak > free else ""
    return Check("memory", "passed", said + tight)


def _unsupported(config: StageConfig, facts: MachineFacts) -> Iterator[ConfigError]:
    """What the configuration asks of the card or of an extra, and cannot have here."""
    oldest = min((card.capability for card in facts.cards), default=None)
    if config.model.dtype == "bfloat16" and oldest is not None and oldest < OLDEST_BFLOAT16:
        said = f"bfloat16 needs compute capability 8.0, and a card here has {oldest[0]}.{oldest[1]}"
        yield ConfigError(said, where="model.dtype", fix="set model.dtype=float16 or float32")
    if config.model.dtype == "float16" and oldest is None:
        yield ConfigError("float16 is for GPUs", where="model.dtype", fix="set model.dtype=float32 or bfloat16")
    for key, asked, package, fix in _gpu_only(config):
        if asked and oldest is None:
            yield ConfigError("it needs a CUDA GPU, and torch sees none", where=key, fix=fix)
        elif asked and package and find_spec(package) is None:
            extra = "vllm" if package == "vllm" else "gpu"
            said = f"{package} is not installed"
            yield ConfigError(said, where=key, fix=f"pip install -e '.[{extra}]' in the checkout, or {fix}")


def _gpu_only(config: StageConfig) -> Iterator[tuple[str, bool, str, str]]:
    """(key=value, whether it is asked for, package, the way out)."""
    yield "model.attention=varlen", config.model.attention == "varlen", "", "set model.attention=auto"
    if isinstance(config, LanguageConfig):
        yield "model.head=liger", config.model.head == "liger", "liger_kernel", "set model.head=chunked"
    if isinstance(config, PpoConfig):
        wanted = config.rollout.backend == "vllm"
        yield "rollout.backend=vllm", wanted, "vllm", "set rollout.backend=transformers"


def _launcher(stage: str, path: str, words: Sequence[str], facts: MachineFacts) -> Check:
    line = launch_line(stage, path, words, nodes=1, gpus=facts.ranks, device="gpu" if facts.cards else "cpu")
    return Check("launcher", "info", line)
