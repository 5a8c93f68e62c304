"""The roles of a stage, from its configuration, and the memory they need together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from rlhf.artifacts.adapter import find_adapter
from rlhf.config.ppo import PpoConfig
from rlhf.config.role_paths import role_paths
from rlhf.config.schema import DpoConfig, LanguageConfig, RewardConfig, SftConfig, StageConfig
from rlhf.config.sections import DeepSpeedSection, LoraSection, SamplingSection
from rlhf.errors import ModelError
from rlhf.plan import activations as acts
from rlhf.plan.batches import Batches, batches_of
from rlhf.plan.engine_share import engine_bytes
from rlhf.plan.host import parked_bytes
from rlhf.plan.memory import Allocation, MemoryPlan, Role, inference_phases, training_phases
from rlhf.plan.moments import trained_matrices
from rlhf.plan.shapes import ModelShape, on_disk, shape_of
from rlhf.plan.states import (
    Placement,
    engine_states,
    frozen_bytes,
    inference_states,
    trained_parameters,
    trained_states,
)
from rlhf.rollout.capacity import CacheBuckets, planned_slots

Shapes = Mapping[str, ModelShape]


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its placement: its configuration, the shapes of its roles, its batches."""

    config: StageConfig
    shapes: Shapes
    placement: Placement
    batches: Batches


def stage_shapes(config: StageConfig, named: Mapping[str, str] | None = None) -> dict[str, ModelShape]:
    """The shape of each role; `named` gives the model behind a run folder that is not there yet.

    Raises: ModelError for a path that is neither on disk nor known by name.
    """
    paths = asdict(role_paths(config)) if isinstance(config, PpoConfig) else {"model": config.model.path}
    return {role: _shape(role, path, named or {}) for role, path in paths.items() if path is not None}


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


def plan_memory(
    config: StageConfig, shapes: Shapes, placement: Placement, batches: Batches | None = None
) -> MemoryPlan:
    """What one rank holds in each phase of the stage; with full rows, or with `batches`."""
    planned = PlannedStage(config, shapes, placement, batches or batches_of(config, placement.world_size))
    if isinstance(config, PpoConfig):
        return _plan_ppo(planned, config)
    scalar = isinstance(config, RewardConfig)
    shape = shapes["model"].as_scalar() if scalar else shapes["model"]
    average = getattr(config.train, "ema_decay", None) is not None
    kind = "score" if scalar else "logprobs" if isinstance(config, DpoConfig) else "loss"
    role = _learner(planned, "model", shape, config.deepspeed, kind, average=average)
    phases = training_phases([role], placement, accumulates=planned.batches.micro > 1)
    prompts = _sampled_prompts(config, placement)
    if prompts and isinstance(config, LanguageConfig):
        slots = planned_slots(config.sampling.batch_size, prompts, on_gpu=placement.device == "gpu")
        phases["sampling"] = role.resident() + _rollout(
            planned, config.sampling, role, slots, prompts=max(slots, prompts)
        )
    return MemoryPlan(placement, phases, role.part("offloaded", role.states.host), config.model.lora is not None)


def _sampled_prompts(config: StageConfig, placement: Placement) -> int:
    """Prompts that a rank of stage 1 or of preference optimisation answers at a time while it trains."""
    count = 0
    if isinstance(config, SftConfig | DpoConfig) and config.log.samples_every_steps is not None:
        count = config.log.num_samples
    kl_prompts = config.dpo.kl_prompts if isinstance(config, DpoConfig) else 0
    return max(count, -(-kl_prompts // placement.world_size))


def _learner(
    planned: PlannedStage, name: str, shape: ModelShape, section: DeepSpeedSection, kind: str, *, average: bool = False
) -> Role:
    fields, _ = planned.config.learners["critic" if name == "critic" else "train"]
    model, placement = planned.config.model, planned.placement
    states = trained_states(shape, model, section, placement, average=average, optimizer=fields.optimizer)
    return Role(name, shape, states, section.zero_stage, True, _training_pass(planned, name, shape, kind))


def _training_pass(planned: PlannedStage, name: str, shape: ModelShape, kind: str) -> list[Allocation]:
    """A forward pass with a graph over one row."""
    model, element, row = planned.config.model, planned.placement.element, planned.batches.row
    tree = isinstance(planned.config, RewardConfig | DpoConfig)
    found = acts.training_bytes(shape, model, element, row, tree=tree)
    parts = [Allocation(name, part, value, small=True) for part, value in found.items()]
    head = acts.head_bytes(shape, model, element, row, planned.placement.device, kind=kind)
    of_weight = 4 * shape.embedding if model.lora is None and not shape.scalar and kind != "score" else 0
    parts.append(Allocation(name, "logits", max(0.0, head - of_weight), small=True))
    parts += [Allocation(name, "head's gradient", float(of_weight))] if of_weight else []
    return parts + _dequantized(planned, name, shape)


def _dequantized(planned: PlannedStage, name: str, shape: ModelShape) -> list[Allocation]:
    """The largest 4-bit matrix, dequantised for its product."""
    if planned.config.model.quantize == "none":
        return []
    size = max(given * out for given, out in shape.linears.values()) * planned.placement.element
    return [Allocation(name, "a 4-bit matrix unpacked", float(size))]


def _inference_pass(planned: PlannedStage, name: str, shape: ModelShape, kind: str) -> list[Allocation]:
    model, placement = planned.config.model, planned.placement
    size = acts.inference_bytes(shape, model, placement.element, planned.batches.row, placement.device, kind=kind)
    return [Allocation(name, "forward pass", size, small=True), *_dequantized(planned, name, shape)]


def _rollout(
    planned: PlannedStage, sampling: SamplingSection, role: Role, slots: int, *, prompts: int
) -> list[Allocation]:
    """Sampling with the role's weights: slots for all waiting prompts, or as many as `sampling.batch_size` allows."""
    element = planned.placement.element
    buckets = CacheBuckets(fixed=planned.placement.device == "gpu")
    slots, columns = buckets.slots(slots), buckets.columns(planned.batches.prompt + sampling.max_new_tokens)
    whole = acts.cache_bytes(role.shape, element, slots, columns)
    # The old cache stands beside the new one: a full one while prompts wait, otherwise what is left below 75 %,
    # and at the start the prompts' own.
    prefill = acts.cache_bytes(role.shape, element, slots, planned.batches.prompt)
    weights = float(role.shape.parameters * element) if role.zero_stage == 3 else 0.0
    drawing = 3.0 * 4 * slots * role.shape.vocabulary  # float32 logits of the next token, their softmax and its sum
    return [
        Allocation(role.name, "KV cache", whole),
        Allocation(role.name, "KV cache beside it", whole if prompts > slots else max(prefill, 0.75 * whole)),
        Allocation(role.name, "logits", drawing, small=True),
        *role.part("weights gathered to sample", weights, small=True, transient=True),
        *_graph(planned, role, slots, drawing),
        *_dequantized(planned, role.name, role.shape),
    ]


def _graph(planned: PlannedStage, role: Role, slots: int, drawing: float) -> list[Allocation]:
    """The pool of a captured decode step, which nothing else may use: the activations of a token per slot, and the
    logits. The first steps, before the capture, take as much outside of it."""
    config, placement = planned.config, planned.placement
    graphs = config.rollout.cuda_graphs if isinstance(config, PpoConfig) else "auto"
    if placement.device != "gpu" or graphs == "off":
        return []
    step = acts.inference_bytes(role.shape, config.model, placement.element, slots, placement.device, kind="score")
    return [Allocation(role.name, "CUDA graph", step + drawing)]


def _plan_ppo(planned: PlannedStage, config: PpoConfig) -> MemoryPlan:
    shared = config.ppo.roles == "shared"
    roles = _shared_roles(planned, config) if shared else _separate_roles(planned, config)
    placement, actor = planned.placement, roles[0]
    phases = training_phases(roles, placement, accumulates=planned.batches.micro > 1)
    phases |= inference_phases(roles)
    own = -(-config.ppo.rollout_size // placement.world_size)
    base = [each for role in roles if not role.parked for each in role.resident()]
    if config.rollout.backend == "transformers":
        slots = planned_slots(config.sampling.batch_size, own, on_gpu=placement.device == "gpu")
        phases["rollout"] = base + _rollout(planned, config.sampling, actor, slots, prompts=own)
    else:  # vLLM takes its whole share at once: the weights once more, and as much cache as is left
        # Under ZeRO 3 whole weights are gathered a bucket at a time.
        engine = engine_bytes(config, actor.shape, placement)
        phases["rollout"] = [*base, Allocation("vllm", "weights and cache", engine)]
    host = [each for role in roles for each in role.part("offloaded", role.states.host)]
    host += [each for role in roles if role.parked for each in role.part("parked", _parked_bytes(planned, role))]
    return MemoryPlan(placement, phases, host, config.model.lora is not None or shared)


def _parked_bytes(planned: PlannedStage, role: Role) -> float:
    """CPU memory of a role that leaves the GPU: page-locked, but for weights in four bits."""
    if planned.config.model.quantize != "none":
        return role.states.weights
    return parked_bytes(role.shape, planned.placement.element)


def _separate_roles(planned: PlannedStage, config: PpoConfig) -> list[Role]:
    """A model per role, the actor first."""
    common, shapes, average = config.deepspeed, planned.shapes, config.train.ema_decay is not None
    own = config.actor.deepspeed or common
    roles = [_learner(planned, "actor", shapes["actor"], own, "logprobs", average=average)]
    if "critic" in shapes:
        roles.append(_learner(planned, "critic", shapes["critic"], config.critic.deepspeed or common, "score"))
    return roles + [_frozen(planned, config, name) for name in ("reference", "reward") if name in shapes]


def _frozen(planned: PlannedStage, config: PpoConfig, name: str) -> Role:
    settings = config.reference if name == "reference" else config.reward
    section, shape = settings.deepspeed or config.deepspeed, planned.shapes[name]
    states = inference_states(shape, config.model, section, planned.placement, offload=settings.offload)
    parked = settings.offload and planned.placement.device == "gpu" and section.zero_stage < 3
    work = _inference_pass(planned, name, shape, "logprobs" if name == "reference" else "score")
    return Role(name, shape, states, section.zero_stage, False, work, parked)


def _shared_roles(planned: PlannedStage, config: PpoConfig) -> list[Role]:
    """One engine over a backbone and the adapters of its roles; a reward of another shape is a model of its own."""
    shape, section, element = planned.shapes["actor"], config.deepspeed, planned.placement.element
    model = config.model.model_copy(update={"lora": adapter_settings(config)})
    adapter = trained_parameters(shape, model)
    reward = planned.shapes.get("reward", shape)
    apart = (reward.layers, reward.width, reward.vocabulary) != (shape.layers, shape.width, shape.vocabulary)
    learning = 1 + ("critic" in planned.shapes)
    held = learning + 1 + ("reward" in planned.shapes and not apart)  # the reference has the adapter of stage 1
    states = engine_states(
        shape,
        section,
        planned.placement,
        whole=frozen_bytes(shape, model, element),
        adapters=held * adapter * element,
        trained=learning * adapter + (shape.width if learning > 1 else 0),
        average=config.train.ema_decay is not None,
        optimizer=config.train.optimizer,
        matrices=[(rows, columns, learning * count) for rows, columns, count in trained_matrices(shape, model)],
    )
    narrow = replace(planned, config=config.model_copy(update={"model": model}))
    work = _training_pass(narrow, "backbone", shape, "logprobs")
    roles = [Role("backbone", shape, states, section.zero_stage, True, work)]
    return [*roles, _frozen(planned, config, "reward")] if apart else roles


def adapter_settings(config: PpoConfig) -> LoraSection:
    """The adapters of a shared backbone: those of the actor's run where it is there, else model.lora."""
    folder = find_adapter(config.actor.path) if config.actor.path else None
    if folder is None:
        return config.model.lora or LoraSection()
    stored = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    targets = stored["target_modules"]
    return LoraSection(rank=int(stored["r"]), targets=targets if isinstance(targets, list) else "all-linear")
