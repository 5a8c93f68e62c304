"""Tiny tokenizers and models, made here with random weights: nothing is downloaded.

`tiny_neox`     a Polyglot-shaped GPT-NeoX causal LM with tokenizer, as `rlhf base tiny` leaves it (no template)
`tiny_llama`    a Llama causal LM with grouped-query heads and the same tokenizer
`tiny_reward`   a one-label GPT-NeoX classifier, its tokenizer carrying the kullm template
`chat_tokenizer`  the tokenizer, audited, with the kullm template

Weights are larger than transformers' start values, so that a wrong mask or position shows in the outputs.
Session-wide: a test that changes a folder copies it first.

Every test runs in an empty folder and with an empty home, so that neither the folder pytest was started in nor what
earlier runs left there decides a result. DeepSpeed's built op and matplotlib's font list are kept from the real home.
"""
# ruff: noqa: E402 - packages read the environment when they are imported

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def _empty_home() -> tempfile.TemporaryDirectory[str]:
    """A home without settings, hub caches or runs; only the two caches are linked into it."""
    home, real = tempfile.TemporaryDirectory(prefix="rlhf-home-"), Path.home()
    for cache in (".cache/rlhf/extensions", ".cache/matplotlib"):
        (real / cache).mkdir(parents=True, exist_ok=True)
        (Path(home.name) / cache).parent.mkdir(parents=True, exist_ok=True)
        (Path(home.name) / cache).symlink_to(real / cache)
    os.environ["HOME"] = home.name
    return home


HOME = _empty_home()  # removed when pytest ends
for name in ("HF_HOME", "HF_DATASETS_CACHE", "HF_HUB_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
    os.environ.pop(name, None)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tests.support import future_warnings

future_warnings.install()

import pytest
import torch
from transformers import (
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.demo.options import TinySize
from rlhf.demo.tiny_base import polyglot_shape, train_tokenizer

TEXTS = (
    "안녕하세요? 오늘은 날씨가 참 좋네요!",
    "점심에 뭘 먹으면 좋을까요? 김치찌개는 어떠세요?",
    "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.",
    "### 명령어:\n내일 비가 온대요.\n\n### 응답:\n우산을 꼭 챙기세요.",
    "많이 속상하셨겠어요. 따뜻한 물로 씻고 푹 쉬어 보세요.",
    "그냥 혼자 먹어. 귀찮게 왜 물어봐?",
    "제주도 2박 3일이면 충분히 즐거우실 거예요!",
)
VOCABULARY = 400
SHAPE = TinySize(hidden=32, layers=2, heads=4, vocabulary=VOCABULARY, positions=256)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Flags of tests/gpu, which runs at its real size on a GPU and can be tried at a tiny one on a CPU."""
    parser.addoption("--device", default="cuda", help="tests/gpu: where to compute, cuda (default) or cpu")
    parser.addoption("--tiny", action="store_true", help="tests/gpu: small tensors and few cases")


@pytest.fixture(autouse=True)
def _empty_working_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 400 tokens; rare syllables take three tokens each. Do not change it: copy the folder."""
    return train_tokenizer(TEXTS, VOCABULARY)


@pytest.fixture(scope="session")
def tiny_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A folder that holds the tokenizer alone, without a template."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chat_tokenizer(tiny_tokenizer_dir: Path) -> ChatTokenizer:
    """The audited tokenizer with the kullm template."""
    return load_tokenizer(str(tiny_tokenizer_dir), "kullm")


@pytest.fixture(scope="session")
def tiny_neox(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A GPT-NeoX causal LM of 2 layers of 32, with its tokenizer."""
    config = polyglot_shape(SHAPE, len(tiny_tokenizer))
    return _saved(GPTNeoXForCausalLM, config, tmp_path_factory.mktemp("neox"), tiny_tokenizer, seed=1)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A Llama causal LM, 4 query heads on 2 key heads, with the same tokenizer."""
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=SHAPE.hidden,
        intermediate_size=2 * SHAPE.hidden,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=2,
        max_position_embeddings=SHAPE.positions,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        tie_word_embeddings=False,
    )
    return _saved(LlamaForCausalLM, config, tmp_path_factory.mktemp("llama"), tiny_tokenizer, seed=2)


@pytest.fixture(scope="session")
def tiny_reward(tmp_path_factory: pytest.TempPathFactory, chat_tokenizer: ChatTokenizer) -> Path:
    """A GPT-NeoX classifier with one label."""
    config = polyglot_shape(SHAPE, len(chat_tokenizer.tokenizer))
    config.num_labels = 1
    folder = tmp_path_factory.mktemp("reward")
    return _saved(GPTNeoXForSequenceClassification, config, folder, chat_tokenizer.tokenizer, seed=3)


def _saved(
    kind: type[PreTrainedModel], config: object, folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int
) -> Path:
    generator = torch.Generator().manual_seed(seed)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3, generator=generator)
            else:  # norms and biases: a bias of 0 would hide that it is lost
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
