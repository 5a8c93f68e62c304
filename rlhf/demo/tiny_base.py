"""A tiny base model from any text: byte-level BPE and a Polyglot-shaped GPT-NeoX, trained on the spot.

It stands in for Polyglot-ko where there is no network and no GPU: same architecture, same file layout, small
enough for a CPU. It learns plain text, no template and no instructions.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from rlhf.data.embedded import data_path
from rlhf.data.encode import EncodedSequence
from rlhf.data.loader import RowStream
from rlhf.data.packing import pack_sequences, plan_micro_batches
from rlhf.data.records import Demonstration, Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.demo.options import TinySize
from rlhf.demo.world.grammar import korean_world
from rlhf.engine.ranks import seed_everything
from rlhf.errors import ArtifactError, DataError
from rlhf.models.head import LossRequest, install_head
from rlhf.models.loading import ATTENTION, PackedCausalLM
from rlhf.train.schedules import Schedule

EOS, PAD = "<|endoftext|>", "<|padding|>"
MICRO_TOKENS = 4096
NUM_ORDERS = 5
WORLD = frozenset({"demo:answers_train", "demo:answers_dev", "demo:rankings_train", "demo:rankings_dev"})


def make_tiny_base(data: Sequence[str], out: str | Path, *, size: TinySize = TinySize(), seed: int = 17) -> float:
    """Trains tokenizer and model on the text of `data` and saves a Hugging Face folder; returns the last loss.

    Raises: DataError when there is no text; ArtifactError when `out` holds a model already.
    """
    folder = Path(out)
    if (folder / "config.json").exists():
        raise ArtifactError(f"{folder} already holds a model", where="--out", fix="choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    documents = read_documents(data, seed)
    seed_everything(seed)
    # One token for every 200 characters: with more, each is seen too seldom to be learnt.
    fitting = min(6000, max(1200, sum(map(len, set(documents))) // 200))
    lines = dict.fromkeys(line for text in documents for line in text.splitlines(keepends=True))
    tokenizer = train_tokenizer([*lines], size.vocabulary or fitting, whole=whole_pieces(data))
    model = GPTNeoXForCausalLM(polyglot_shape(size, len(tokenizer)))
    model.set_attn_implementation(ATTENTION["sdpa"])
    install_head(model, "chunked")
    with torch.no_grad():  # starting as a copy, the head finds words of the question again after little training
        model.lm_head.weight.copy_(model.gpt_neox.embed_in.weight)
        for layer in model.gpt_neox.layers:
            _start_as_copying(layer.attention)
    ids = tokenizer([text + EOS for text in documents])["input_ids"]
    sequences = [
        EncodedSequence(np.asarray(row[: size.positions], np.int32), np.ones(min(len(row), size.positions), bool))
        for row in ids
        if len(row) > 1
    ]
    loss = _train(PackedCausalLM(model), sequences, size, seed)
    model.set_attn_implementation("sdpa")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return loss


def _start_as_copying(attention: Any) -> None:
    """Values and output begin as inverses of one another, so that what is attended to is written as it was read
    (mimetic initialisation, arXiv:2305.09828): copying words of the question is then learnt within minutes."""
    qkv, out = attention.query_key_value, attention.dense
    heads, size = attention.config.num_attention_heads, attention.head_size
    turned = torch.linalg.qr(torch.randn(heads * size, heads * size))[0]
    qkv.weight.view(heads, 3, size, -1)[:, 2] = turned.view(heads, size, -1)
    out.weight.copy_(turned.T)


def read_documents(data: Sequence[str], seed: int = 17) -> list[str]:
    """Plain text of data files: a line of a .txt file, a conversation, or a question with all its answers."""
    documents: list[str] = []
    for path in map(data_path, data):
        if path.endswith(".txt"):
            documents += [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        else:
            documents += _conversations(path, random.Random(seed))
    if not documents:
        raise DataError("no text to make a base from", where=", ".join(data), fix="name a file with text")
    return documents


def _conversations(path: str, generator: random.Random) -> list[str]:
    """Rows as text. A question stands with all its answers, in several orders: later answers take up words of
    the question and of earlier ones, which is what teaches a small model to look back."""
    try:
        rankings = read_records(DataSource(path), Ranking).records
    except DataError:  # not rankings: any file of demonstrations will do
        rows = read_records(DataSource(path), Demonstration, on_bad_row="skip").records
        return ["\n".join(message.content for message in row.messages) for row in rows]
    return [
        "\n".join([row.prompt[-1].content, *generator.sample(row.responses, len(row.responses))])
        for _ in range(NUM_ORDERS)
        for row in rankings
    ]


def whole_pieces(data: Sequence[str]) -> str:
    """A pattern of what is a piece of its own in data of the demo's world: its things, which particles follow.

    A thing is then the same token in a question and in an answer, so that the model copies it whole.
    """
    return korean_world().whole_things() if not WORLD.isdisjoint(data) else ""


def train_tokenizer(documents: Sequence[str], vocabulary: int, *, whole: str = "") -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that every Hangul syllable round-trips; EOS and PAD are tokens of their own.

    Args:
        whole: pattern of what is a piece of its own within a word; "" for none.
    """
    core = Tokenizer(models.BPE())
    # A word is the same tokens wherever it stands: spaces and marks are tokens of their own.
    words = pre_tokenizers.Split(Regex(r"\w+|\s|[^\w\s]"), "isolated")
    pieces = [pre_tokenizers.Split(Regex(whole), "isolated")] if whole else []
    core.pre_tokenizer = pre_tokenizers.Sequence([words, *pieces, pre_tokenizers.ByteLevel(False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOS, pad_token=PAD, bos_token=EOS)


def polyglot_shape(size: TinySize, vocabulary: int) -> GPTNeoXConfig:
    """Polyglot-ko's architecture at another size: rotary on half of each head, parallel residual, untied head."""
    return GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden,
        max_position_embeddings=size.positions,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        use_parallel_residual=True,
        hidden_act="gelu",
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        tie_word_embeddings=False,
    )


def _train(model: PackedCausalLM, sequences: list[EncodedSequence], size: TinySize, seed: int) -> float:
    """A plain loop in this process: the base is raw material, not a run."""
    stream = RowStream((len(sequences),), (1.0,), seed, size.batch_size, size.epochs)
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.lr, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = Schedule(stream.num_steps, min(20, stream.num_steps // 10), "cosine", 0.1)
    consumed, loss = 0, math.nan
    for step in range(1, stream.num_steps + 1):
        batch = [sequences[row] for row in stream.batch(consumed)]
        consumed += len(batch)
        for group in optimizer.param_groups:
            group["lr"] = size.lr * schedule.factor(step)
        loss = _step(model, optimizer, batch)
        if step in (1, stream.num_steps) or step % 50 == 0:
            sys.stderr.write(f"tiny base: step {step}/{stream.num_steps}  loss {loss:.3f}\n")
    return loss


def _step(model: PackedCausalLM, optimizer: torch.optim.Optimizer, batch: list[EncodedSequence]) -> float:
    plan = plan_micro_batches([len(item) for item in batch], MICRO_TOKENS, 1)[0]
    rows = [pack_sequences([batch[i] for i in items]) for items in plan]
    total = torch.tensor(sum(float(row.weights.sum()) for row in rows))
    optimizer.zero_grad()
    loss = 0.0
    for row in rows:
        request = LossRequest(row.labels, row.weights, total)
        share = model(row.input_ids, row.position_ids, row.segments, row.positions, request).loss
        share.backward()
        loss += float(share.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss
