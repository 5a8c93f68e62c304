"""What a stage with one trained model begins with: the folder of that model, its tokenizer, and a language model."""

from __future__ import annotations

from typing import Any

from rlhf.config.schema import DpoConfig, SftConfig
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.deepspeed import TrainedModel
from rlhf.models.loading import artifact_model_path, check_model_path
from rlhf.models.quantization import require_quantizer
from rlhf.train.end_token import end_token_line
from rlhf.train.models import build_causal_lm, make_trainable
from rlhf.train.run.run import Run


def opened_model(run: Run[Any]) -> tuple[str, ChatTokenizer]:
    """The folder that `model.path` stands for, and its tokenizer, whose notes are said.

    Raises: ModelError, TokenizerError or TemplateError for one that cannot be used.
    """
    config = run.config
    path = artifact_model_path(config.model.path)
    check_model_path(path, key="model.path")
    require_quantizer(config.model.quantize)
    tokenizer = load_tokenizer(path, config.data.template)
    run.say_all(tokenizer.notes)
    return path, tokenizer


def trained_language_model(run: Run[SftConfig] | Run[DpoConfig], path: str, tokenizer: ChatTokenizer) -> TrainedModel:
    """The language model at `path` in the engine that trains it, with its adapter and average."""
    config = run.config
    wrapped = build_causal_lm(path, config.model, config.deepspeed, run.ranks, tokenizer, key="model.path")
    make_trainable(wrapped, config.model, run.say)
    if line := end_token_line(wrapped, tokenizer.eos_id, str(tokenizer.tokenizer.eos_token)):
        run.say(line)
    dtype, decay = config.model.dtype, config.train.ema_decay
    return TrainedModel(wrapped, config.train, config.deepspeed, run.ranks, dtype=dtype, ema_decay=decay)
