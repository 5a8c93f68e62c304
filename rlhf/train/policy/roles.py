"""The roles of PPO as trainers see them, whether each is a model of its own or all share one backbone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from rlhf.data.packing import PackedRow
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.deepspeed import StepOutcome
from rlhf.engine.ranks import Ranks
from rlhf.ops.linear_logprobs import TokenLogprobs
from rlhf.ops.losses import CrossEntropy
from rlhf.train.run.lifecycle import Exportable, Savable, export
from rlhf.train.run.run import Run


class TrainedRole(Protocol):
    """A trained model. Losses given to `backward` are already divided by their global count."""

    @property
    def ranks(self) -> Ranks: ...
    @property
    def dtype(self) -> str: ...
    def train(self) -> None: ...
    def forward(self, row: PackedRow) -> Tensor: ...
    def infer(self, row: PackedRow) -> Tensor: ...
    def backward(self, loss: Tensor) -> None: ...


class ActorRole(TrainedRole, Exportable, Protocol):
    """The policy, which also generates."""

    def logprobs(self, row: PackedRow, temperature: float, *, with_entropy: bool = False) -> TokenLogprobs: ...
    def infer_logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs: ...
    def loss(self, row: PackedRow, total: float) -> CrossEntropy: ...

    def full_weights(self) -> AbstractContextManager[nn.Module]: ...
    def held_weights(self) -> AbstractContextManager[nn.Module]: ...
    def averaged(self) -> AbstractContextManager[None]: ...


class FrozenRole(Protocol):
    """A frozen model."""

    @property
    def ranks(self) -> Ranks: ...
    def infer(self, row: PackedRow) -> Tensor: ...
    def full_weights(self) -> AbstractContextManager[nn.Module]: ...
    def held_weights(self) -> AbstractContextManager[nn.Module]: ...


class ReferenceRole(FrozenRole, Protocol):
    """The frozen model that the KL divergence is measured against."""

    def infer_logprobs(self, row: PackedRow, temperature: float) -> TokenLogprobs: ...


class Updates(Protocol):
    """Steps and saves the trained roles, separate or shared."""

    def step(self, rates: Mapping[str, float]) -> dict[str, StepOutcome]: ...
    def savable(self) -> Mapping[str, Savable]: ...


@dataclass(frozen=True, slots=True)
class Roles:
    """Two trained and two frozen models, with the same interface for separate and shared roles.

    critic is None for an estimator without values, reward for a run whose scores come from elsewhere. `updates` is
    None where each trained role has an engine of its own. `backbone` is the path of the model that shared roles adapt.
    """

    actor: ActorRole
    critic: TrainedRole | None
    reference: ReferenceRole
    reward: FrozenRole | None
    updates: Updates | None = None
    backbone: str = ""

    def step(self, rates: Mapping[str, float]) -> dict[str, StepOutcome]:
        """One update of the roles named in `rates`, each at its learning rate, from the gradients of `backward`.

        A role that is not named, or had no `backward` since the last step, keeps its weights and its optimizer state;
        its gradients are dropped too, and its outcome has their norm.

        Raises: NonFiniteError before the update when a gradient's norm is not finite (float16 skips instead).
        """
        return self._updates().step(rates)

    def trained(self) -> Mapping[str, Savable]:
        """What a checkpoint holds, by the name of its folder."""
        return self._updates().savable()

    def export_actor(self, run: Run[Any], tokenizer: ChatTokenizer, probe: PackedRow, base_path: str) -> None:
        """Writes run.dir/model (and adapter/, where the actor is one), proved by a reload."""
        export(run, self.actor, tokenizer, probe, base_path=self.backbone or base_path)

    def _updates(self) -> Updates:
        engines = {"actor": self.actor} | ({} if self.critic is None else {"critic": self.critic})
        return self.updates or SeparateUpdates(engines)


@dataclass(frozen=True, slots=True)
class SeparateUpdates:
    """One engine per role."""

    engines: Mapping[str, Any]

    def step(self, rates: Mapping[str, float]) -> dict[str, StepOutcome]:
        return {
            name: engine.step(rates[name]) if name in rates else engine.discard()
            for name, engine in self.engines.items()
        }

    def savable(self) -> dict[str, Savable]:
        return dict(self.engines)
