"""Models for a stage: loaded, fitted to the tokenizer, with adapters and memory options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlhf.artifacts.adapter import SAME_SETTINGS, base_identity, find_adapter, read_adapter
from rlhf.artifacts.files import read_json
from rlhf.config.sections import DeepSpeedSection, LanguageModelSection, ModelSection
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.partitioned import loading_context, writable
from rlhf.engine.ranks import Ranks
from rlhf.errors import ArtifactError, ModelError
from rlhf.models.adapters import add_lora
from rlhf.models.head import install_head
from rlhf.models.loading import (
    LoadOptions,
    PackedCausalLM,
    PackedModel,
    PackedScalarModel,
    artifact_model_path,
    check_model_path,
    checkpoint_activations,
    count_parameters,
    load_causal_lm,
    load_scalar_model,
    unwrap_peft,
)
from rlhf.models.scalar_head import HEAD_WEIGHT, initialise_head

Say = Callable[[str], None]


def _load_options(model: ModelSection, section: DeepSpeedSection, ranks: Ranks, *, parked: bool) -> LoadOptions:
    """On a GPU weights are read straight onto it, so that the ranks of a machine do not each hold the model in CPU
    memory; not those that ZeRO 3 partitions as they are read, nor those of a `parked` model, which stay there."""
    straight = ranks.device.type == "cuda" and section.zero_stage < 3 and not parked
    context = partial(loading_context, section, dtype=model.dtype, on_gpu=ranks.device.type != "cpu")
    return LoadOptions(
        dtype=model.dtype,
        attention=model.attention,
        cudnn_attention=model.cudnn_attention,
        device=ranks.device,
        place=ranks.device if straight else torch.device("cpu"),
        context=context,
        quantize=model.quantize,
    )


def build_causal_lm(
    path: str,
    model: LanguageModelSection,
    section: DeepSpeedSection,
    ranks: Ranks,
    tokenizer: ChatTokenizer,
    *,
    key: str,
    parked: bool = False,
) -> PackedCausalLM:
    """The language model at `path`, ready to be wrapped; a `parked` one is in CPU memory."""
    check_model_path(path, key=key)
    wrapped = load_causal_lm(path, **_load_options(model, section, ranks, parked=parked))
    _fit_tokenizer(wrapped, tokenizer, path, override_eos=model.override_eos)
    install_head(wrapped.model, model.head)
    return wrapped


def build_scalar_model(
    path: str,
    model: ModelSection,
    section: DeepSpeedSection,
    ranks: Ranks,
    tokenizer: ChatTokenizer,
    *,
    key: str,
    new_head_seed: int | None = None,
    parked: bool = False,
) -> PackedScalarModel:
    """The one-number model at `path`; `new_head_seed` starts a head on a language model's weights. A `parked` one is in
    CPU memory."""
    check_model_path(path, key=key)
    options = _load_options(model, section, ranks, parked=parked)
    wrapped = load_scalar_model(path, new_head=new_head_seed is not None, **options)
    if new_head_seed is not None:
        head: Any = wrapped.model.score
        with writable(list(head.parameters())):
            initialise_head(head, seed=new_head_seed)
    _fit_tokenizer(wrapped, tokenizer, path, override_eos=model.override_eos)
    return wrapped


def build_critic(
    path: str, model: ModelSection, section: DeepSpeedSection, ranks: Ranks, tokenizer: ChatTokenizer
) -> PackedScalarModel:
    """The value model at `path`; on a language model's weights its values start at 0."""
    if is_scalar_folder(path):
        return build_scalar_model(path, model, section, ranks, tokenizer, key="critic.path")
    wrapped = build_scalar_model(path, model, section, ranks, tokenizer, key="actor.path", new_head_seed=0)
    head: Any = wrapped.model.score
    with writable(list(head.parameters())):
        initialise_head(head, seed=0, zero=True)
    return wrapped


def is_scalar_folder(path: str) -> bool:
    """Whether the folder holds a classifier, whose head is kept."""
    config = Path(path) / "config.json"
    names = read_json(config).get("architectures") or [] if config.is_file() else []
    return any("SequenceClassification" in name for name in names)


def make_trainable(wrapped: PackedModel, model: ModelSection, say: Say) -> None:
    """Adds LoRA and gradient checkpointing as configured, and reports how much is trained."""
    if model.lora is not None:
        add_lora(wrapped, model.lora)
    if model.adapter:
        say(f"starts from the adapter {start_from_adapter(wrapped, model.adapter, artifact_model_path(model.path))}")
    if isinstance(wrapped, PackedCausalLM) and isinstance(model, LanguageModelSection):
        install_head(unwrap_peft(wrapped.model), model.head)  # refuses a head that the adapter has replaced
    if model.gradient_checkpointing:
        checkpoint_activations(wrapped.model)
    total, trained = count_parameters(wrapped)
    say(f"model: {total:,} parameters, {trained:,} trained ({trained / total:.2%})")


def starting_points(model: ModelSection, base_path: str) -> dict[str, str]:
    """The parents of a run of stage 1 or 2, by their names in the manifest."""
    return {"base": base_path} | ({"adapter": model.adapter} if model.adapter else {})


def start_from_adapter(wrapped: PackedModel, path: str, base_path: str) -> Path:
    """Sets the adapter's weights to those in `path`, and the head's where that adapter has one; its folder.

    Raises: ArtifactError when there is no adapter; ModelError for one of another base or shape.
    """
    folder = find_adapter(path)
    if folder is None:
        raise ArtifactError(f"{path} holds no adapter", where="model.adapter", fix="name a finished LoRA run")
    stored = read_adapter(folder)
    if stored.base.identity != base_identity(base_path):
        raise ModelError(
            f"{folder} was trained on {stored.base.path}, which is not {base_path}",
            where="model.adapter",
            expected="an adapter of the model in model.path, by its hash",
            fix=f"set model.path={stored.base.path}",
        )
    own = wrapped.model.peft_config["default"]
    tensors = stored.layers | stored.embeddings | ({} if stored.head is None else {"score": stored.head})
    places = {_saved_name(name): parameter for name, parameter in wrapped.model.named_parameters()}
    adapted = {name for name in places if "lora_" in name}
    differing = [name for name in SAME_SETTINGS if getattr(own, name) != stored.settings[name]]
    if differing or adapted != set(stored.layers) or not tensors.keys() <= places.keys():
        raise ModelError(
            f"{folder} has another shape than model.lora: {', '.join(differing) or 'other modules are adapted'}",
            where="model.adapter",
            expected="the rank, alpha, targets and variant it was trained with",
            fix=f"set model.lora.rank={stored.settings['r']}, model.lora.alpha={stored.settings['lora_alpha']}",
        )
    with writable([places[name] for name in tensors]), torch.no_grad():
        for name, value in tensors.items():
            places[name].copy_(value)
    return folder


def _saved_name(name: str) -> str:
    """The name of a parameter in adapter_model.safetensors; a one-number head is `score`."""
    if HEAD_WEIGHT.search(name):
        return "score" if ".modules_to_save." in name else name
    plain = name.replace(".default", "")
    return plain.removesuffix(".weight") if "lora_magnitude_vector" in plain else plain


def _fit_tokenizer(wrapped: PackedModel, tokenizer: ChatTokenizer, path: str, *, override_eos: bool) -> None:
    """Embeddings for every token, and the tokenizer's EOS and PAD in the configurations.

    Raises: ModelError when the model was made with another EOS: it would have to end answers with a token it never saw.
    """
    config, settings = wrapped.model.config, getattr(wrapped.model, "generation_config", None)
    for name, holder in (("config.json", config), ("generation_config.json", settings)):
        known = getattr(holder, "eos_token_id", None)
        agreed = known is None or tokenizer.eos_id in (known if isinstance(known, list) else [known])
        if not (agreed or override_eos):
            raise ModelError(
                f"{name} says EOS is token {known}, the tokenizer says {tokenizer.eos_id}",
                where=path,
                expected="one EOS everywhere: with two, answers are trained to end with one and stopped at the other",
                fix=f"correct eos_token_id in {name}, or set model.override_eos=true to take the tokenizer's",
            )
    size = len(tokenizer.tokenizer)
    if size > config.vocab_size:
        wrapped.model.resize_token_embeddings(size, mean_resizing=False)
    for holder in (config, settings):
        if holder is not None:
            holder.eos_token_id, holder.pad_token_id = tokenizer.eos_id, tokenizer.pad_id
