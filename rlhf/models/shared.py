"""One frozen backbone under several adapters, each with the head of its role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.errors import ModelError
from rlhf.models.head import LOGITS, Request, Result
from rlhf.models.loading import PackedCausalLM, hidden_states, packed_inputs
from rlhf.ops.segments import Segments


class SharedBackbone(nn.Module):
    """A causal LM over packed rows whose adapters are switched by role.

    A role without an adapter is the backbone as it is. The active adapter is set in the layers themselves: peft's own
    `set_adapter` also flips `requires_grad`, which ZeRO 1 to 3 do not survive.

    Args:
        language: the backbone; adapters are put inside it.
        actor: peft's settings of the first adapter, which is the one that is exported.
    """

    def __init__(self, language: PackedCausalLM, actor: Any) -> None:
        super().__init__()
        from peft import get_peft_model

        language.requires_grad_(False)
        language.model = get_peft_model(language.model, actor, adapter_name="actor")
        self.language = language
        self.heads = nn.ModuleDict()
        self._shifts: dict[str, float] = {}
        self._layers: list[Any] = []
        self._collect_layers()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def _collect_layers(self) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._layers = [module for module in self.modules() if isinstance(module, BaseTunerLayer)]

    def add_adapter(self, role: str, settings: Any) -> None:
        """Adds an adapter whose initial effect is zero."""
        self.language.model.add_adapter(role, settings)
        self._collect_layers()

    def fill_adapter(self, role: str, layers: Mapping[str, Tensor]) -> None:
        """Sets the weights of a role's adapter, named as in adapter_model.safetensors.

        Raises: ModelError when names or shapes are of another adapter.
        """
        from peft import set_peft_model_state_dict

        wanted = {name for name, _ in self.named_parameters() if "lora_" in name and self.role_of(name) == role}
        try:
            report: Any = set_peft_model_state_dict(self.language.model, dict(layers), adapter_name=role)
        except RuntimeError as error:
            raise _misfit(role, str(error)) from error
        if report.unexpected_keys or len(layers) != len(wanted):
            raise _misfit(
                role, f"{len(layers)} tensors for {len(wanted)}, {len(report.unexpected_keys)} of them unknown"
            )

    def add_head(self, role: str, weight: Tensor, shift: float) -> None:
        """A one-number head: its weight [1, width], and what is added to its output (reward units)."""
        head = nn.Linear(weight.shape[1], 1, bias=False)
        like = self.language.model.get_input_embeddings().weight
        dtype = next(each.dtype for each in self.language.parameters() if each.is_floating_point())
        head.weight = nn.Parameter(weight.detach().clone().to(like.device, dtype))
        self.heads[role], self._shifts[role] = head, shift

    def train_only(self, roles: tuple[str, ...]) -> None:
        """Freezes everything but the adapters and heads of `roles`."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.role_of(name) in roles)

    def role_of(self, name: str) -> str:
        """The role that owns a parameter, by its name here; empty for the backbone's own."""
        parts = name.split(".")
        if parts[0] == "heads":
            return parts[1]
        places = [place for place, part in enumerate(parts) if part.startswith("lora_")]
        return parts[places[0] + 1] if places else ""

    def role_state(self, role: str) -> dict[str, Tensor]:
        """The adapter of `role` and all embeddings, on the CPU, named as in the adapted model."""
        model = self.language.model
        own = {name: value for name, value in self.named_parameters() if self.role_of(name) == role}
        state = {
            name.removeprefix("language.model."): value.detach().to("cpu", copy=True) for name, value in own.items()
        }
        names = {id(module): name for name, module in model.named_modules()}
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            for name, value in module.state_dict().items() if module is not None else ():
                state[f"{names[id(module)]}.{name}"] = value.detach().cpu()
        return state

    def select(self, role: str) -> None:
        """Activates the adapter of `role` until the next call, also for recomputed activations."""
        for layer in self._layers:
            layer._active_adapter = [role]

    def forward(
        self,
        role: str,
        input_ids: Tensor,
        position_ids: Tensor,
        segments: Segments,
        positions: Tensor,
        request: Request[Result] = LOGITS,  # type: ignore[assignment]
    ) -> Result | Tensor:
        """As `PackedCausalLM` for a role without a head; scores [P] float32, in reward units, for one with a head."""
        self.select(role)
        if role not in self.heads:
            return self.language(input_ids, position_ids, segments, positions, request=request)
        causal = self.language.model.get_base_model()
        hidden = hidden_states(causal, packed_inputs(input_ids, position_ids, segments, positions), positions)
        return self.heads[role](hidden).squeeze(-1).float() + self._shifts[role]


def stored_settings(settings: Mapping[str, Any]) -> Any:
    """peft's settings of an adapter from its adapter_config.json, without a head: heads are kept separately here.

    Its dropout is set to 0: a ratio of log-probabilities must not be random.
    """
    from peft import LoraConfig

    names = LoraConfig.__dataclass_fields__
    known = {name: value for name, value in settings.items() if name in names}
    known |= {"task_type": "CAUSAL_LM", "modules_to_save": None, "inference_mode": False, "lora_dropout": 0.0}
    return LoraConfig(**known)


def _misfit(role: str, reason: str) -> ModelError:
    return ModelError(
        f"the adapter of the {role} does not fit the backbone: {reason}",
        expected="adapters trained on this base",
        fix="check which runs actor.path, reward.path and critic.path name",
    )
