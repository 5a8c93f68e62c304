"""Models for a stage: loaded, given the tokenizer's special tokens, adapters and memory options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rlhf.config.sections import DeepSpeedSection, ModelSection
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.deepspeed import loading_context, writable
from rlhf.engine.ranks import Ranks
from rlhf.errors import ModelError
from rlhf.models.adapters import add_lora
from rlhf.models.head import install_head
from rlhf.models.loading import (
    PackedCausalLM,
    PackedModel,
    PackedScalarModel,
    check_model_path,
    count_parameters,
    load_causal_lm,
    load_scalar_model,
    unwrap_peft,
)
from rlhf.models.scalar_head import initialise_head

Say = Callable[[str], None]


def build_causal_lm(
    path: str, model: ModelSection, section: DeepSpeedSection, ranks: Ranks, tokenizer: ChatTokenizer, *, key: str
) -> PackedCausalLM:
    """The language model at `path`, ready to be wrapped."""
    check_model_path(path, key=key)
    context = partial(loading_context, section, dtype=model.dtype, on_gpu=ranks.device.type != "cpu")
    wrapped = load_causal_lm(
        path, dtype=model.dtype, attention=model.attention, context=context, quantize=model.quantize
    )
    _fit_tokenizer(wrapped, tokenizer, path, override_eos=model.override_eos)
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
) -> PackedScalarModel:
    """The one-number model at `path`; `new_head_seed` starts a head on a language model's weights."""
    check_model_path(path, key=key)
    context = partial(loading_context, section, dtype=model.dtype, on_gpu=ranks.device.type != "cpu")
    new_head = new_head_seed is not None
    wrapped = load_scalar_model(
        path,
        dtype=model.dtype,
        attention=model.attention,
        context=context,
        quantize=model.quantize,
        new_head=new_head,
    )
    if new_head_seed is not None:
        head: Any = wrapped.model.score
        with writable(list(head.parameters())):
            initialise_head(head, seed=new_head_seed)
    _fit_tokenizer(wrapped, tokenizer, path, override_eos=model.override_eos)
    return wrapped


def make_trainable(wrapped: PackedModel, model: ModelSection, say: Say) -> None:
    """Adds LoRA and gradient checkpointing as configured, and says how much is trained."""
    if model.lora is not None:
        add_lora(wrapped, model.lora)
    if isinstance(wrapped, PackedCausalLM):
        install_head(unwrap_peft(wrapped.model), model.head)
    if model.gradient_checkpointing:
        wrapped.model.gradient_checkpointing_enable({"use_reentrant": False})
    total, trained = count_parameters(wrapped)
    say(f"model: {total:,} parameters, {trained:,} trained ({trained / total:.2%})")


def _fit_tokenizer(wrapped: PackedModel, tokenizer: ChatTokenizer, path: str, *, override_eos: bool) -> None:
    """Embeddings for every token, and the tokenizer's EOS and PAD in the configurations.

    Raises: ModelError when the model was made with another EOS: it would be asked to end with a token it never wrote.
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
