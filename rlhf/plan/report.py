"""The report of `rlhf plan` on a configuration, as data; `render` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.config.load import load_config
from rlhf.config.schema import StageConfig
from rlhf.config.stages import STAGES
from rlhf.plan.fit import Fit, cheapest_fit, ranks_that_fit
from rlhf.plan.launch import hostfile, launch_line
from rlhf.plan.machine import UTILISATION, Machine
from rlhf.plan.memory import MemoryPlan
from rlhf.plan.names import models_of_runs
from rlhf.plan.roles import Shapes, plan_memory, stage_shapes
from rlhf.plan.states import Placement
from rlhf.plan.time import A100_FLOPS, RunEstimate, estimate_run

CPU_FLOPS = 1e11


@dataclass(frozen=True)
class PlanReport:
    """A plan and its consequences. `fit` is None if the run fits, or if nothing would make it fit."""

    stage: str
    config: StageConfig
    machine: Machine
    shapes: Shapes
    plan: MemoryPlan
    fit: Fit | None
    more_ranks: int | None
    effort: RunEstimate
    line: str
    hosts: str

    @property
    def fits(self) -> bool:
        return self.plan.peak <= self.machine.memory

    def as_json(self) -> dict[str, Any]:
        """Numbers in bytes and plain text."""
        change = None
        if self.fit is not None:
            change = {"words": self.fit.words, "peak": self.fit.plan.peak, "price": [c.price for c in self.fit.changes]}
        phases = {name: self.plan.phase_bytes(name) for name in self.plan.phases}
        return {
            "stage": self.stage,
            "models": {role: {"name": s.name, "parameters": s.parameters} for role, s in self.shapes.items()},
            "ranks": self.machine.ranks,
            "memory": self.machine.memory,
            "fits": self.fits,
            "peak": self.plan.peak,
            "largest_phase": self.plan.largest,
            "phases": phases,
            "parts": self.plan.by_role(self.plan.largest),
            "host": self.plan.host_bytes,
            "cheapest_change": change,
            "ranks_that_fit": self.more_ranks,
            "effort": {name: getattr(self.effort, name) for name in RunEstimate.__dataclass_fields__},
            "launch": self.line,
            "hostfile": self.hosts,
        }


def make_report(
    stage: str, path: str, words: Sequence[str], machine: Machine, *, utilisation: float = UTILISATION
) -> PlanReport:
    """Plans a configuration file with its overrides.

    Raises: ConfigError for the file; ModelError for a model whose shape is not known.
    """
    config = load_config(STAGES[stage].config, path, words)
    shapes = stage_shapes(config, models_of_runs(path))
    placement = Placement(machine.ranks, machine.device, config.model.dtype, machine.memory)
    plan = plan_memory(config, shapes, placement)
    fit, more = None, None
    if plan.peak > machine.memory:
        fit = cheapest_fit(config, shapes, placement, machine.memory)
        more = ranks_that_fit(config, shapes, placement, machine.memory)
    speed = A100_FLOPS if machine.device == "gpu" else CPU_FLOPS
    effort = estimate_run(config, shapes, machine.ranks, utilisation=utilisation, flops_per_second=speed)
    all_words = [*words, *fit.words.split()] if fit else words
    line = launch_line(stage, path, all_words, nodes=machine.nodes, gpus=machine.gpus, device=machine.device)
    hosts = hostfile(machine.nodes, machine.gpus)
    return PlanReport(stage, config, machine, shapes, plan, fit, more, effort, line, hosts)
