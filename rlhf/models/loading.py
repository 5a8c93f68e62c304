"""Loads Hugging Face models and wraps them for packed rows.

The engine passes its own context in (ZeRO-3 partitions weights while they are created); nothing
here depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rlhf.config.model_paths import how_to_make
from rlhf.errors import ModelError
from rlhf.models.attention import PACKED_SDPA, PACKED_VARLEN, no_mask
from rlhf.models.attention_choice import KernelSupport, Wanted, allow_cudnn, choose_attention
from rlhf.models.head import LOGITS, LanguageModelHead, LogitsRequest, Request, Result
from rlhf.models.last_layer import read_last_mlp_in_part
from rlhf.models.quantization import Quantize, keep_differentiable, quantized_loading
from rlhf.ops.segments import Segments

LoadContext = Callable[[], AbstractContextManager[Any]]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTION = {"sdpa": PACKED_SDPA, "varlen": PACKED_VARLEN}


def packed_inputs(input_ids: Tensor, position_ids: Tensor, segments: Segments, positions: Tensor) -> dict[str, Any]:
    """What a transformers model is given for one packed row (input_ids [1, T]) that is read at `positions` [P]."""
    return {
        "input_ids": input_ids,
        "attention_mask": no_mask(input_ids.device),
        "position_ids": position_ids,
        "segments": segments,
        "read_positions": positions,
        "use_cache": False,
    }


def hidden_states(model: Any, inputs: dict[str, Any], positions: Tensor) -> Tensor:
    """[P, width]: what the head of a Hugging Face model (without peft around it) reads at `positions` [P]."""
    backbone: Any = getattr(model, model.base_model_prefix)
    return backbone(**inputs).last_hidden_state[0].index_select(0, positions)


class PackedCausalLM(nn.Module):
    """A causal LM over packed rows; its head runs at the read positions alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: Any = model
        read_last_mlp_in_part(model)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        segments: Segments,
        positions: Tensor,
        request: Request[Result] = LOGITS,  # type: ignore[assignment]
        noise: Tensor | None = None,
    ) -> Result:
        """What `request` asks of the tokens at `positions` [P] of one row (input_ids [1, T]); logits [P, V] by default.

        Losses and log-probabilities never hold all logits where the head is a `LanguageModelHead`. `noise`
        [1, T, width] is added to the embeddings of the row's tokens.
        """
        inputs = packed_inputs(input_ids, position_ids, segments, positions)
        if noise is not None:
            embedded = self.model.get_input_embeddings()(inputs.pop("input_ids"))
            inputs["inputs_embeds"] = embedded + noise.to(embedded.dtype)
        causal = unwrap_peft(self.model)
        head = causal.get_output_embeddings()
        if isinstance(head, LanguageModelHead) and not isinstance(request, LogitsRequest):
            return head(hidden_states(causal, inputs, positions), request=request)
        return request.from_logits(self.model(**inputs, logits_to_keep=positions).logits[0])


class PackedScalarModel(nn.Module):
    """A one-label sequence classifier over packed rows: a reward or a value at any position."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: Any = model
        read_last_mlp_in_part(model)

    def forward(self, input_ids: Tensor, position_ids: Tensor, segments: Segments, positions: Tensor) -> Tensor:
        """Scores [P] float32, in reward units, read at `positions` [P] of one row (input_ids [1, T])."""
        classifier = unwrap_peft(self.model)
        hidden = hidden_states(classifier, packed_inputs(input_ids, position_ids, segments, positions), positions)
        shift = float(getattr(classifier.config, "score_shift", 0.0))
        return classifier.score(hidden).squeeze(-1).float() + shift


PackedModel = PackedCausalLM | PackedScalarModel


def unwrap_peft(model: Any) -> Any:
    """The Hugging Face model itself, with its adapter layers inside if it has any."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def check_model_path(path: str, *, key: str) -> None:
    """Raises ModelError when `path` is empty or looks like a folder that is not there."""
    if not path:
        raise ModelError("no model is named", where=key, fix=f"set {key}=FOLDER or a hub id")
    folder = Path(path)
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1 or folder.parts[0] == "runs"
    if not folder.is_dir() and looks_local:
        raise ModelError(f"no such folder: {path}", where=key, fix=how_to_make(path, "check the path"))
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(
            f"{path} holds no config.json",
            where=key,
            expected="a Hugging Face model folder, or a finished run's model/ folder",
            fix=f"use {path}/model if it is a run folder",
        )


def artifact_model_path(path: str) -> str:
    """`path/model` when `path` is a run folder that has one, else `path`."""
    inner = Path(path) / "model" / "config.json"
    return str(Path(path) / "model") if path and inner.is_file() else path


class LoadOptions(TypedDict, total=False):
    """How a model is loaded; `quantize` stores its linear layers in four bits, `context` is active while it loads.

    `device` is where it will compute, on which the attention kernel depends; `place` is where its weights are loaded
    (default: CPU memory).
    """

    dtype: str
    attention: Wanted
    cudnn_attention: bool
    device: torch.device
    place: torch.device
    context: LoadContext
    quantize: Quantize


def load_causal_lm(path: str, **options: Unpack[LoadOptions]) -> PackedCausalLM:
    """A causal LM by folder or hub id.

    Raises: ModelError when the folder cannot be read or weights are missing.
    """
    return PackedCausalLM(_load(AutoModelForCausalLM, path, options))


def load_scalar_model(path: str, *, new_head: bool = False, **options: Unpack[LoadOptions]) -> PackedScalarModel:
    """A one-label classifier; `new_head` allows a causal LM's folder and leaves the head to be initialised."""
    model = _load(AutoModelForSequenceClassification, path, options, new_head=new_head, num_labels=1)
    return PackedScalarModel(model)


def _load(
    auto: Any, path: str, options: LoadOptions, *, new_head: bool = False, **config_options: Any
) -> PreTrainedModel:
    # Progress bars and load reports would drown the output of a run; what matters in them is checked below.
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    dtype = DTYPES[options.get("dtype", "float32")]
    config = model_config(path, **config_options)
    without_dropout(config)
    allow_cudnn(options.get("cudnn_attention", False))
    support = KernelSupport.on(options.get("device", torch.device("cpu")))
    attention = choose_attention(options.get("attention", "auto"), config, dtype, support)
    try:
        with options.get("context", nullcontext)():
            model, report = auto.from_pretrained(
                path,
                config=config,
                dtype=dtype,
                attn_implementation=ATTENTION[attention.kind],
                output_loading_info=True,
                **_placed(options.get("place")),
                **quantized_loading(options.get("quantize", "none"), dtype),
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"cannot load {path}: {error}", fix="check the folder, or the hub id") from error
    missing = [key for key in report["missing_keys"] if not (new_head and key.startswith("score"))]
    mismatched = list(report.get("mismatched_keys", []))
    if missing or mismatched:
        names = ", ".join(str(key) for key in [*missing, *mismatched][:4])
        raise ModelError(
            f"{path} lacks {len(missing) + len(mismatched)} weights of a {type(model).__name__}: {names}",
            expected="a folder whose weights fill the whole model; missing ones would be random",
            fix="use a complete model folder",
        )
    keep_differentiable(model)
    return model


def _placed(place: torch.device | None) -> dict[str, Any]:
    """Options of `from_pretrained`: read straight onto a device, a model is never whole in CPU memory."""
    return {} if place is None or place.type == "cpu" else {"device_map": {"": place}}


def model_config(path: str, **options: Any) -> Any:
    """The transformers configuration of a folder or hub id.

    Raises: ModelError when it cannot be read.
    """
    try:
        return AutoConfig.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load {path}: {error}", fix="check the folder, or the hub id") from error


def without_dropout(config: Any) -> None:
    """Sets every dropout of the configuration to 0, GPT-2's `resid_pdrop` and OPT's `layerdrop` too: log-probabilities
    must not be random."""
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(all, trainable) parameters, counting partitioned and 4-bit ones whole."""
    sizes = [(_whole_size(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def _whole_size(parameter: nn.Parameter) -> int:
    packed = getattr(parameter, "quant_state", None)
    return int(packed.shape.numel() if packed is not None else getattr(parameter, "ds_numel", parameter.numel()))


def checkpoint_activations(model: Any) -> None:
    """Lets the layers of a Hugging Face model recompute their activations in the backward pass.

    The method has this name from transformers 5.24 on, which warns about the older one.
    """
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
