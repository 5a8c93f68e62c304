"""The models of one service: loaded, named, each with its own decode loop."""

from __future__ import annotations

import re
import threading
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlhf.data.encode import Encoder, Ids
from rlhf.data.records import Message, Prompt
from rlhf.data.row_values import encodable
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.memory import free_memory
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError, DataError, ModelError
from rlhf.models.loading import PackedCausalLM, artifact_model_path, check_model_path, load_causal_lm, model_config
from rlhf.rollout.capacity import check_cacheable, column_bytes
from rlhf.rollout.decoding import Decoder
from rlhf.rollout.vllm.frozen import frozen_engine
from rlhf.rollout.vllm.stepping import EngineDecoder
from rlhf.serve.chat.batching import Batcher, StepDecoder
from rlhf.serve.chat.token_text import TokenTexts
from rlhf.serve.options import ServingSettings

if TYPE_CHECKING:
    from rlhf.serve.metrics import Metrics

MAX_SLOTS = 32
ENGINE_SLOTS = 64  # of an engine, which pages its cache
MEMORY_SHARE = 0.5  # of free memory for keys and values when the number of slots is ours to choose
MAX_TEXT = 1 << 62  # tokens: nothing is cut here, what is too long is refused


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in service. `context` limits the tokens of prompt and answer."""

    name: str
    created_at: int
    context: int
    tokenizer: ChatTokenizer
    token_texts: TokenTexts
    batcher: Batcher

    def chat_ids(self, messages: Sequence[Message]) -> Ids:
        """A conversation up to where the answer begins, rendered and cleaned as in training, never cut.

        Raises: DataError for turns no stage would train on.
        """
        cleaned = tuple(replace(message, content=clean_text(message.content)) for message in messages)
        return Encoder(self.tokenizer, MAX_TEXT).prompts([Prompt(cleaned)])[0].ids

    def text_ids(self, text: str) -> Ids:
        """Text as it is, with the start that the tokenizer gives a text, special tokens read as such; for an empty text
        that start, or EOS, which separates documents."""
        check_encodable(text)
        return self.checked_ids(self.tokenizer.text_ids(text) or [self.tokenizer.eos_id])

    def checked_ids(self, ids: Sequence[int]) -> Ids:
        """Ids a client sent. Raises DataError for one that is no token."""
        size = len(self.tokenizer.tokenizer)
        wrong = next((number for number in ids if not 0 <= number < size), None)
        if wrong is not None or not ids:
            raise DataError(f"{wrong} is no token" if ids else "no tokens", expected=f"ids from 0 to {size - 1}")
        return np.asarray(ids, np.int32)


class Models:
    """All models in service, by name; models can be added while it runs."""

    def __init__(self, settings: ServingSettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._lock = threading.Lock()
        self._models: dict[str, ServedModel] = {}

    def add(self, name: str, path: str | Path) -> ServedModel:
        """Loads a model onto the GPU if there is one, and puts it into service; it replaces one of the same name.

        Raises: ModelError or TokenizerError when it cannot be served.
        """
        decoder, tokenizer, context, num_slots = self._decoder(name, str(path))
        batcher = Batcher(
            decoder,
            tokenizer.eos_id,
            tokenizer.text,
            num_slots=num_slots,
            queue=self._settings.queue,
            observer=self._metrics,
        )
        model = ServedModel(name, int(time.time()), context, tokenizer, TokenTexts(tokenizer.tokenizer), batcher)
        with self._lock:
            before, self._models[name] = self._models.get(name), model
        if before is not None:
            before.batcher.close()
        return model

    def _decoder(self, name: str, path: str) -> tuple[StepDecoder, ChatTokenizer, int, int]:
        """What decodes a model, its tokenizer, its context, and how many answers it writes at once."""
        settings = self._settings
        if settings.rollout.backend == "vllm":
            folder, tokenizer, context = checked_policy(path, settings.template, key="--model")
            self._require_room(name)
            num_slots = settings.num_slots or ENGINE_SLOTS
            device = serving_device()
            engine = frozen_engine(
                folder,
                settings.rollout,
                Ranks(0, 0, 1, device),
                max_length=context,
                max_answers=num_slots,
                dtype=dtype_on(device, settings.dtype),
                eos=[tokenizer.eos_id],
                decode=tokenizer.text,
                log=settings.engine_logs / engine_log(name),
                raw_logprobs=True,
            )
            return EngineDecoder(engine, num_slots=num_slots), tokenizer, context, num_slots
        packed, tokenizer, context = load_policy(path, settings.dtype, settings.template, key="--model")
        num_slots = settings.num_slots or slots_within(packed, context)
        decoder = Decoder(packed.model, tokenizer.eos_id, num_slots=num_slots, enter_above=1.0)
        return decoder, tokenizer, context, num_slots

    def _require_room(self, name: str) -> None:
        """Raises ConfigError when the engines of all models, one of `name` as well, ask for more than the GPU has."""
        share, others = self._settings.rollout.vllm.gpu_memory, len(self._models)
        if torch.cuda.is_available() and share * (others + 1) > 1:
            raise ConfigError(
                f"{others} engines with {share:g} of the GPU's memory each leave no room for that of {name}",
                where="--vllm-gpu-memory",
                expected=f"at most {1 / (others + 1):.2f} for {others + 1} models",
                fix="lower it, or serve fewer models",
            )

    def get(self, name: str) -> ServedModel | None:
        return self._models.get(name)

    def all(self) -> list[ServedModel]:
        """In the order they were added."""
        with self._lock:
            return list(self._models.values())

    def close(self) -> None:
        for model in self.all():
            model.batcher.close()


def name_of(path: str) -> str:
    """The default name of a model: that of its run folder, or of its own."""
    folder = Path(path).resolve() if Path(path).is_dir() else Path(path)
    return folder.parent.name if folder.name == "model" else folder.name


def named_models(words: Sequence[str]) -> dict[str, str]:
    """`--model` words, PATH or NAME=PATH, as name -> path. Raises ConfigError when two have one name."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, path = word.partition("=")
        name, path = (name, path) if equals else (name_of(word), word)
        if not name or not path:
            raise ConfigError("no name or no path", where=f"--model {word}", expected="PATH or NAME=PATH")
        if name in found:
            fix = f"name one of them: --model {name}-2={path}"
            raise ConfigError(f"two models are named {name}", where="--model", fix=fix)
        found[name] = path
    return found


def load_policy(path: str, dtype: str, template: str | None, *, key: str) -> tuple[PackedCausalLM, ChatTokenizer, int]:
    """The causal LM of a run or a folder, ready to decode on this machine's device, its tokenizer and its context.

    Raises: ModelError or TokenizerError when it cannot be used, naming the flag `key`.
    """
    folder, tokenizer, context = checked_policy(path, template, key=key)
    device = serving_device()
    packed = load_causal_lm(folder, dtype=dtype_on(device, dtype), device=device)
    packed.to(device).eval()
    check_cacheable(packed.model, 1)
    return packed, tokenizer, context


def checked_policy(path: str, template: str | None, *, key: str) -> tuple[str, ChatTokenizer, int]:
    """The folder of a run's model or of a model, its tokenizer and its context; raises as `load_policy`."""
    folder = artifact_model_path(path)
    check_model_path(folder, key=key)
    require_safetensors(folder, key=key)
    tokenizer = load_tokenizer(folder, template)
    config = model_config(folder).get_text_config()
    limits = [getattr(config, key, None) for key in ("max_position_embeddings", "sliding_window")]
    return folder, tokenizer, min((int(limit) for limit in limits if limit), default=2048)


def engine_log(name: str) -> str:
    """The file name of a model's engine log."""
    return re.sub(r"[^\w.-]", "_", name) + ".log"


def serving_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_on(device: torch.device, dtype: str) -> str:
    """The type of the weights, where "auto" leaves it to the device."""
    return ("bfloat16" if device.type == "cuda" else "float32") if dtype == "auto" else dtype


def slots_within(packed: PackedCausalLM, context: int) -> int:
    """How many answers of full length half the free memory holds, at most 32 and at least 1."""
    free = free_memory(next(packed.parameters()).device)
    return max(1, min(MAX_SLOTS, int(free * MEMORY_SHARE / (context * column_bytes(packed.model)))))


def require_safetensors(folder: str, *, key: str) -> None:
    """Raises ModelError for a folder whose weights are pickles: reading one runs whatever code is in it."""
    path = Path(folder)
    if path.is_dir() and not any(path.glob("*.safetensors")):
        raise ModelError(
            f"{folder} holds no safetensors",
            where=key,
            expected="weights as model.safetensors; pickled weights can run code and are never read here",
            fix="load the folder once where you trust it and save it again with save_pretrained()",
        )
    if not path.is_dir():
        raise ModelError(
            f"{folder} is not a folder on this machine",
            where=key,
            fix="download it first: hf download NAME --local-dir FOLDER",
        )


def clean_text(text: str) -> str:
    """NFC without outer whitespace, as data rows are read. Raises DataError for half a surrogate pair."""
    check_encodable(text)
    return unicodedata.normalize("NFC", text.strip())


def check_encodable(text: str) -> None:
    """Raises DataError for half a surrogate pair, which no tokenizer can encode."""
    if not encodable(text):
        raise DataError("half a surrogate pair, which no tokenizer can encode", fix="send the text as UTF-8")
