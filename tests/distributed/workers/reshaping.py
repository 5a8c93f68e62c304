"""A run handed from one number of ranks and ZeRO stage to the next, a step at a time, beside one that is not.

Started once by each number of ranks in turn. What is whole is asked of DeepSpeed's own getters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from rlhf.engine.deepspeed import TrainedModel
from rlhf.engine.ranks import session
from rlhf.train.policy.roles import Roles
from rlhf.train.sft import sft_step
from tests.distributed.problem import SCHEDULE, SMALL, Problem, sft_config
from tests.distributed.workers.building import Results, arguments, causal_lm
from tests.distributed.workers.sharing import shared_roles
from tests.distributed.workers.sharing import take as take_roles

CONFIG = sft_config(SMALL)
KINDS = {  # ranks and ZeRO stage of each step
    "full": ((1, 0), (2, 2), (2, 3), (1, 1), (1, 0)),
    "lora": ((1, 0), (2, 3), (1, 1)),
    "roles": ((1, 0), (2, 2), (1, 1)),
}
BOTH = ("actor", "critic")


def main() -> None:
    given, out = arguments()
    with session(seed=0) as ranks:
        results = Results(ranks)
        for kind, links in KINDS.items():
            chain = Chain(results, given["problem"], given["paths"], Path(given["root"]) / kind, kind)
            if given["begins"]:
                chain.run_whole(len(links))
                continue
            for link, (count, stage) in enumerate(links):
                if link and count == ranks.world_size:
                    chain.run_link(link, stage)
        results.write(out)


class Chain:
    """One kind of model through all links; each link's checkpoint lies in a folder of its own."""

    def __init__(self, results: Results, problem: Problem, paths: dict[str, str], root: Path, kind: str) -> None:
        self._results, self._problem, self._paths = results, problem, paths
        self._root, self._kind = root, kind

    def build(self, stage: int) -> Any:
        ranks = self._results.ranks
        if self._kind == "roles":
            return shared_roles(self._paths, stage, ranks)
        lora = self._kind == "lora"
        return causal_lm(self._paths["neox"], stage, CONFIG.train, ranks, lora=lora, ema_decay=0.9)

    def run_whole(self, num_steps: int) -> None:
        """All steps in one go; the first one's checkpoint is where the chain begins."""
        live = self.build(0)
        for link in range(num_steps):
            self.record(f"whole {link}", live, self.take(live, link))
            if link == 0:
                self.save(live, 0)

    def run_link(self, link: int, stage: int) -> None:
        live = self.build(stage)
        change = engine_of(live).load(self._root / str(link - 1))
        self._results.numbers[f"{self._kind} change {link}"] = change
        self._results.weights[f"{self._kind} loaded {link}"] = whole(live)
        self.record(f"link {link}", live, self.take(live, link))
        self.save(live, link)

    def take(self, live: Any, link: int) -> Any:
        batch = self._problem.demonstrations[link % 3]
        if isinstance(live, Roles):
            outcomes = take_roles(live, batch, BOTH, BOTH[link % 2 :])  # the actor stands still every other step
            return {role: outcome.grad_norm for role, outcome in outcomes.items()}
        live.train()
        return sft_step(live, batch, CONFIG, SCHEDULE, link + 1)

    def record(self, name: str, live: Any, metrics: Any) -> None:
        self._results.numbers[f"{self._kind} {name}"] = metrics
        self._results.weights[f"{self._kind} {name}"] = whole(live)
        averaged = live.actor if isinstance(live, Roles) else live
        with averaged.averaged():
            self._results.weights[f"{self._kind} average {name}"] = averaged.state_dict()

    def save(self, live: Any, link: int) -> None:
        folder = self._root / str(link)
        if self._results.ranks.is_main:
            folder.mkdir(parents=True)
        self._results.ranks.barrier()
        engine_of(live).save(folder)
        self._results.ranks.barrier()


def engine_of(live: TrainedModel | Roles) -> Any:
    return live.updates if isinstance(live, Roles) else live


def whole(live: TrainedModel | Roles) -> dict[str, Tensor]:
    """Float32 weights and moments of trained parameters, by name and kind."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    engine, found = engine_of(live)._engine, {}
    if engine.zero_optimization_stage() in {1, 2}:
        engine.optimizer._lazy_init_hp_params_optimizer_state()  # or the getters know no moments before a step
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            continue
        if engine.zero_optimization_stage():
            found[f"{name} weight"] = safe_get_full_fp32_param(parameter)
            for kind in ("exp_avg", "exp_avg_sq"):
                found[f"{name} {kind}"] = safe_get_full_optimizer_state(parameter, kind)
        else:
            state = engine.optimizer.state[parameter]
            found |= {f"{name} {kind}": state[kind] for kind in ("exp_avg", "exp_avg_sq")}
            found[f"{name} weight"] = parameter
    return {name: value.detach().clone() for name, value in found.items()}


if __name__ == "__main__":
    main()
