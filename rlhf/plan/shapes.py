"""The shape of a model from its config.json, or from a table of well-known models: nothing is loaded or downloaded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rlhf.errors import ModelError

# What a layer has beside two norms of the width; `tied` where a config.json without the key means it.
GATED: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {"biased": True},
    "qwen3": {"head_norms": True},
    "gemma": {"tied": True, "wide_norms": True},
    "gemma2": {"tied": True, "wide_norms": True, "norms": 4},
    "gemma3_text": {"tied": True, "wide_norms": True, "norms": 4, "head_norms": True},
    "exaone4": {"head_norms": True},
    "phi3": {},
}


@dataclass(frozen=True)
class ModelShape:
    """A decoder of attention layers. Sizes in entries.

    inner: width inside the feed-forward layers; gated: whether these have a gate beside the projection up (Llama);
    norms: of the width in a gated layer; head_norms: each head's query and key are normalised too; wide_norms: norms
    scale in float32; biased: query, key and value have biases; tied: the head is the embedding; scalar: a head of one
    number in place of the model's.
    """

    name: str
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    gated: bool = False
    tied: bool = False
    scalar: bool = False
    positions: int = 0
    norms: int = 2
    head_norms: bool = False
    wide_norms: bool = False
    biased: bool = False

    @property
    def attended(self) -> int:
        """Entries of a token's query, all heads together."""
        return self.heads * self.head_size

    @property
    def shared(self) -> int:
        """Entries of a token's key, or value, before they are repeated for the heads that share them."""
        return self.kv_heads * self.head_size

    @property
    def normalised(self) -> int:
        """Entries of a token that the norms of a gated layer read."""
        return self.norms * self.width + (self.attended + self.shared) * self.head_norms

    @cached_property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(entries in, entries out) of each linear module of a layer, by its name."""
        width, inner, attended, shared = self.width, self.inner, self.attended, self.shared
        if self.gated:
            sizes = {"q_proj": (width, attended), "k_proj": (width, shared), "v_proj": (width, shared)}
            sizes |= {"o_proj": (attended, width), "gate_proj": (width, inner), "up_proj": (width, inner)}
            return sizes | {"down_proj": (inner, width)}
        names = ("c_attn", "c_proj", "c_fc", "c_proj_out") if self.positions else NEOX_NAMES
        each = ((width, attended + 2 * shared), (attended, width), (width, inner), (inner, width))
        return dict(zip(names, each, strict=True))

    @cached_property
    def linear_weights(self) -> int:
        """Entries of the matrices of one layer."""
        return sum(each * other for each, other in self.linears.values())

    @cached_property
    def layer_parameters(self) -> int:
        """All parameters of one layer: matrices, their biases, norms."""
        if self.gated:
            of_heads = 2 * self.head_size * self.head_norms + (self.attended + 2 * self.shared) * self.biased
            return self.linear_weights + self.norms * self.width + of_heads
        return self.linear_weights + sum(out for _, out in self.linears.values()) + 4 * self.width

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.width

    @property
    def head(self) -> int:
        """Entries of a head of its own: that of the language model, or the one-number head."""
        if self.scalar:
            return self.width
        return 0 if self.tied else self.embedding

    @property
    def parameters(self) -> int:
        norm = self.width if self.gated else 2 * self.width
        outside = self.embedding + self.positions * self.width + norm + self.head
        return self.layers * self.layer_parameters + outside

    def adapter_parameters(self, rank: int, targets: list[str] | str) -> int:
        """Parameters of LoRA adapters on the named modules (peft: `all-linear` is every linear one of a layer)."""
        return self.layers * sum(rank * (given + out) for given, out in self.adapted(targets).values())

    def adapted(self, targets: list[str] | str) -> dict[str, tuple[int, int]]:
        """The linear modules that get an adapter."""
        if isinstance(targets, str):
            return self.linears
        ends = {target.rsplit(".", 1)[-1] for target in targets}
        return {name: sizes for name, sizes in self.linears.items() if name in ends}

    def as_scalar(self) -> ModelShape:
        """The same backbone with a one-number head."""
        return replace(self, scalar=True)


NEOX_NAMES = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


def neox(name: str, layers: int, width: int, heads: int, vocabulary: int = 30080, inner: int = 0) -> ModelShape:
    return ModelShape(name, layers, width, inner or 4 * width, heads, heads, width // heads, vocabulary)


BUILT_IN = {
    "1.3b": neox("Polyglot-ko 1.3B", 24, 2048, 16),
    "3.8b": neox("Polyglot-ko 3.8B", 32, 3072, 24),
    "5.8b": neox("Polyglot-ko 5.8B", 28, 4096, 16),
    "12.8b": neox("Polyglot-ko 12.8B", 40, 5120, 40),
}
FAMILIES = ("polyglot", "kullm")


def shape_of(path: str) -> ModelShape | None:
    """The shape of the model at `path`: its config.json where there is one, else a table by name; None if unknown.

    Raises: ModelError for a config.json that cannot be read, or of an architecture that is not known here.
    """
    file = on_disk(path)
    if file is not None:
        return _read_shape(file)
    size = re.search(r"(?<![\d.])(\d+\.\db)", path.lower())
    known = size and any(family in path.lower() for family in FAMILIES)
    found = BUILT_IN.get(size.group(1)) if size and known else None
    if found is None or "kullm" not in path.lower():
        return found
    return replace(found, name=found.name.replace("Polyglot-ko", "KULLM"))


def on_disk(path: str) -> Path | None:
    """The config.json of a model folder or a run folder; None where there is none."""
    files = (Path(path) / "model" / "config.json", Path(path) / "config.json") if path else ()
    return next((file for file in files if file.is_file()), None)


def _read_shape(file: Path) -> ModelShape:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = _from_config(content, str(file.parent))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot read the model's shape: {error!r}", where=str(file), fix="check the file") from error
    if found is None:
        raise ModelError(
            f"memory of the architecture {content.get('model_type')!r} cannot be planned",
            where=str(file),
            expected=f"gpt_neox, gpt2, {', '.join(GATED)}",
            fix="set run.memory_check=off to train it without a plan",
        )
    return found


def _from_config(content: dict[str, Any], name: str) -> ModelShape | None:
    kind = str(content.get("model_type"))
    gpt2, gated = kind == "gpt2", kind in GATED
    if not gpt2 and not gated and kind != "gpt_neox":
        return None
    traits = {"tied": gpt2, **GATED.get(kind, {})}
    if "tie_word_embeddings" in content and not gpt2:
        traits["tied"] = bool(content["tie_word_embeddings"])
    names = ("n_layer", "n_embd", "n_head") if gpt2 else ("num_hidden_layers", "hidden_size", "num_attention_heads")
    layers, width, heads = (int(content[key]) for key in names)
    return ModelShape(
        name=name,
        layers=layers,
        width=width,
        inner=int(content.get("n_inner") or 4 * width) if gpt2 else int(content["intermediate_size"]),
        heads=heads,
        kv_heads=int(content.get("num_key_value_heads") or heads),
        head_size=int(content.get("head_dim") or width // heads),
        vocabulary=int(content["vocab_size"]),
        gated=gated,
        scalar="SequenceClassification" in str((content.get("architectures") or [""])[0]),
        positions=int(content["n_positions"]) if gpt2 else 0,
        **traits,
    )
