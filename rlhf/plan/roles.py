"""The roles of a stage as its configuration describes them, and the memory they take together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from rlhf.artifacts.adapter import find_adapter
from rlhf.config.schema import PpoConfig, SftConfig, StageConfig
from rlhf.config.sections import DeepSpeedSection, LoraSection, SamplingSection
from rlhf.errors import ModelError
from rlhf.models.packed_linears import LARGEST_BYTES
from rlhf.plan import activations as acts
from rlhf.plan.batches import Batches, batches_of
from rlhf.plan.memory import MemoryPlan, Need, Role, gathered, inference_phases, resident, training_phases
from rlhf.plan.shapes import ModelShape, on_disk, shape_of
from rlhf.plan.states import (
    Placement,
    engine_states,
    frozen_bytes,
    inference_states,
    trained_parameters,
    trained_states,
)

Shapes = Mapping[str, ModelShape]


@dataclass(frozen=True)
class PlannedStage:
    """A stage under a job: its configuration, the shapes of its roles, its batches."""

    config: StageConfig
    shapes: Shapes
    job: Placement
    batches: Batches


def stage_shapes(config: StageConfig, named: Mapping[str, str] | None = None) -> dict[str, ModelShape]:
    """The shape of each role; `named` gives the model behind a run folder that is not there yet.

    Raises: ModelError for a path that is neither on disk nor known by name.
    """
    paths = role_paths(config)
    return {role: _shape(role, path, named or {}) for role, path in paths.items()}


def role_paths(config: StageConfig) -> dict[str, str]:
    """Where the roles that a run has start from."""
    if not isinstance(config, PpoConfig):
        return {"model": config.model.path}
    actor = config.actor.path or config.model.path
    paths = {"actor": actor, "reference": config.reference.path or actor}
    if config.reward.path:
        paths["reward"] = config.reward.path
    if config.ppo.estimator == "gae":
        paths["critic"] = config.critic.path or config.reward.path or actor
    return paths


def _shape(role: str, path: str, named: Mapping[str, str]) -> ModelShape:
    planned = named.get(path.rstrip("/"), "")
    found = shape_of(path if on_disk(path) or not planned else planned)
    if found is None:
        raise ModelError(
            f"the shape of {path!r} is not known",
            where=f"{role}.path" if role != "model" else "model.path",
            expected="a folder with config.json, or a Polyglot-ko or KULLM model by name",
            fix="download the model's config.json into a folder and name that",
        )
    return found.as_scalar() if role in ("reward", "critic") else found


def plan_memory(config: StageConfig, shapes: Shapes, job: Placement, batches: Batches | None = None) -> MemoryPlan:
    """What one rank of `job` holds in each phase of the stage; with full rows, or with `batches`."""
    stage = PlannedStage(config, shapes, job, batches or batches_of(config, job.world_size))
    if isinstance(config, PpoConfig):
        return _plan_ppo(stage, config)
    shape = shapes["model"]
    scalar = type(config).__name__ == "RewardConfig"
    shape = shape.as_scalar() if scalar else shape
    average = getattr(config.train, "ema_decay", None) is not None
    role = _learner(stage, "model", shape, config.deepspeed, "score" if scalar else "loss", average=average)
    phases = training_phases([role], job, accumulates=stage.batches.micro > 1)
    if isinstance(config, SftConfig) and config.log.samples_every_steps is not None:
        slots = min(config.log.num_samples, config.sampling.batch_size)
        phases["sampling"] = resident(role, job) + _rollout(stage, config.sampling, role, slots, prompts=slots)
    return MemoryPlan(job, phases, _host([role]), config.model.lora is not None)


def _learner(
    stage: PlannedStage, name: str, shape: ModelShape, section: DeepSpeedSection, kind: str, *, average: bool = False
) -> Role:
    states = trained_states(shape, stage.config.model, section, stage.job, average=average)
    work = partial(_pass, stage, name, shape, kind)
    return Role(name, shape, states, section.zero_stage, True, work)


def _pass(stage: PlannedStage, name: str, shape: ModelShape, kind: str) -> list[Need]:
    """A forward pass with a graph over one row."""
    model, element, row = stage.config.model, stage.job.element, stage.batches.row
    tree = kind == "score" and name == "model"
    found = acts.training_bytes(shape, model, element, row, tree=tree)
    parts = [Need(name, part, value, True) for part, value in found.items()]
    head = acts.head_bytes(shape, model, element, row, stage.job.device, kind=kind)
    of_weight = 4 * shape.embedding if model.lora is None and not shape.scalar and kind != "score" else 0
    parts.append(Need(name, "logits", max(0.0, head - of_weight), True))
    parts += [Need(name, "head's gradient", float(of_weight))] if of_weight else []
    return parts + _dequantized(stage, name, shape)


def _dequantized(stage: PlannedStage, name: str, shape: ModelShape) -> list[Need]:
    size = acts.dequantized_bytes(shape, stage.config.model, stage.job.element)
    return [Need(name, "a 4-bit matrix unpacked", size)] if size else []


def _asked(stage: PlannedStage, name: str, shape: ModelShape, kind: str) -> list[Need]:
    """A forward pass without a graph."""
    model, element = stage.config.model, stage.job.element
    size = acts.inference_bytes(shape, model, element, stage.batches.row, stage.job.device, kind=kind)
    return [Need(name, "forward pass", size, True), *_dequantized(stage, name, shape)]


def _rollout(stage: PlannedStage, sampling: SamplingSection, role: Role, slots: int, *, prompts: int) -> list[Need]:
    """Sampling with the role's weights: slots for all that waits, or what `sampling.batch_size` allows."""
    element = stage.job.element
    columns = stage.batches.prompt + sampling.max_new_tokens
    whole = acts.cache_bytes(role.shape, element, slots, columns)
    # The old cache stands beside the new one: a full one while prompts wait, otherwise what is left below 75 %,
    # and at the start the prompts' own.
    prefill = acts.cache_bytes(role.shape, element, slots, stage.batches.prompt)
    beside = whole if prompts > slots else max(prefill, 0.75 * whole)
    needs = [
        Need(role.name, "KV cache", whole),
        Need(role.name, "KV cache beside it", beside),
        Need(role.name, "logits", acts.drawing_bytes(role.shape, slots), True),
    ]
    if role.stage == 3:
        whole_weights = float(role.shape.parameters * element)
        needs.append(Need(role.name, "weights gathered to sample", whole_weights, True, True))
    packed = 4.0 * (role.shape.parameters - role.shape.embedding)
    if stage.job.device == "cpu" and element == 4 and packed <= LARGEST_BYTES:
        needs.append(Need(role.name, "packed weights", packed, True))
    return needs + _dequantized(stage, role.name, role.shape)


def _host(roles: list[Role]) -> list[Need]:
    return [Need(role.name, "offloaded", role.states.host) for role in roles if role.states.host]


def _plan_ppo(stage: PlannedStage, config: PpoConfig) -> MemoryPlan:
    shared = config.ppo.roles == "shared"
    roles = _shared_roles(stage, config) if shared else _separate_roles(stage, config)
    job = stage.job
    phases = training_phases(roles, job, accumulates=stage.batches.micro > 1)
    phases |= inference_phases(roles, job)
    actor = roles[0]
    mine = -(-config.ppo.rollout_size // job.world_size)
    base = [need for role in roles if not role.parked for need in resident(role, job)]
    if config.rollout.backend == "transformers":
        slots = min(mine, config.sampling.batch_size)
        phases["rollout"] = base + _rollout(stage, config.sampling, actor, slots, prompts=mine)
    else:  # vLLM holds the weights once more, beside its cache
        engine = float(actor.shape.parameters * job.element)
        phases["rollout"] = [*base, Need("vllm", "weights", engine), *gathered(actor)]
    host = _host(roles) + [
        Need(role.name, "offloaded", role.states.weights) for role in roles if role.parked and role.states.weights
    ]
    return MemoryPlan(job, phases, host, config.model.lora is not None or shared)


def _separate_roles(stage: PlannedStage, config: PpoConfig) -> list[Role]:
    """A model a role, the actor first."""
    common, average = config.deepspeed, config.train.ema_decay is not None
    section = config.actor.deepspeed or common
    roles = [_learner(stage, "actor", stage.shapes["actor"], section, "logprobs", average=average)]
    if "critic" in stage.shapes:
        section = config.critic.deepspeed or common
        roles.append(_learner(stage, "critic", stage.shapes["critic"], section, "score"))
    return roles + [_frozen(stage, config, name) for name in ("reference", "reward") if name in stage.shapes]


def _frozen(stage: PlannedStage, config: PpoConfig, name: str) -> Role:
    settings = config.reference if name == "reference" else config.reward
    section, shape = settings.deepspeed or config.deepspeed, stage.shapes[name]
    states = inference_states(shape, config.model, section, stage.job, offload=settings.offload)
    parked = settings.offload and stage.job.device == "gpu" and section.zero_stage < 3
    kind = "logprobs" if name == "reference" else "score"
    return Role(name, shape, states, section.zero_stage, False, partial(_asked, stage, name, shape, kind), parked)


def _shared_roles(stage: PlannedStage, config: PpoConfig) -> list[Role]:
    """One engine over a backbone and the adapters of its roles; a reward of another shape is a model of its own."""
    shape = stage.shapes["actor"]
    lora = adapter_settings(config)
    model = config.model.model_copy(update={"lora": lora})
    an_adapter = trained_parameters(shape, model)
    apart = "reward" in stage.shapes and not _same_backbone(stage.shapes["reward"], shape)
    learning = 1 + ("critic" in stage.shapes)
    held = learning + 1 + ("reward" in stage.shapes and not apart)  # the reference has the adapter of stage 1
    trained = learning * an_adapter + (shape.width if learning > 1 else 0)
    whole = frozen_bytes(shape, model, stage.job.element)
    states = engine_states(
        shape, whole, held * an_adapter * stage.job.element, trained, config.deepspeed, stage.job,
        average=config.train.ema_decay is not None,
    )  # fmt: skip
    narrow = PlannedStage(config.model_copy(update={"model": model}), stage.shapes, stage.job, stage.batches)
    work = partial(_pass, narrow, "backbone", shape, "logprobs")
    roles = [Role("backbone", shape, states, config.deepspeed.zero_stage, True, work)]
    return [*roles, _frozen(stage, config, "reward")] if apart else roles


def _same_backbone(one: ModelShape, other: ModelShape) -> bool:
    return (one.layers, one.width, one.vocabulary) == (other.layers, other.width, other.vocabulary)


def adapter_settings(config: PpoConfig) -> LoraSection:
    """The adapters of a shared backbone: those of the actor's run where it is there, else model.lora."""
    folder = find_adapter(config.actor.path) if config.actor.path else None
    if folder is None:
        return config.model.lora or LoraSection()
    stored = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    targets = stored["target_modules"]
    return LoraSection(rank=int(stored["r"]), targets=targets if isinstance(targets, list) else "all-linear")
