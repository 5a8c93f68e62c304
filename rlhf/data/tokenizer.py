"""Loads a tokenizer with its template, and audits both before a model is trained with them.

Each check prevents a broken model after a seemingly good training: a padding token that masks EOS, an EOS of several
tokens that is never sampled completely, Hangul that does not survive a round trip.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlhf.data.answer_spans import has_spans
from rlhf.data.records import Message
from rlhf.data.templates import TextSpan, audit_template, history_changes, render_pieces, stock_end, template_text
from rlhf.errors import TokenizerError

HANGUL_PROBE = "안녕하세요? 오늘은 날씨가 참 좋네요! 뷁쉙 ㅋㅋㅋ ㅠㅠ 값어치 닭볶음탕 3시 반, e-mail."
PAD_NAMES = ("<|padding|>", "<pad>", "[PAD]", "<|pad|>", "<|unused0|>", "<unused0>", "<|reserved_special_token_0|>")
NEW_PAD = "<|padding|>"


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    """A Hugging Face tokenizer that passed the audit, and its template.

    history_changes: only the last answer of a conversation can be trained on (see `templates.history_changes`).
    notes: what was decided for a template that does not say it, for people to read.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str
    eos_id: int
    pad_id: int
    special_texts: tuple[str, ...]
    history_changes: bool = False
    notes: tuple[str, ...] = ()

    def pieces(self, messages: Sequence[Message], *, open_answer: bool = False) -> list[TextSpan]:
        """The conversation as text, split at the boundaries of its answers."""
        return render_pieces(self.template, messages, _special(self.tokenizer), open_answer=open_answer)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text: nothing is added, and the text of special tokens becomes special tokens."""
        if not texts:
            return []
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text without special tokens."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def save(self, folder: str | Path) -> None:
        self.tokenizer.save_pretrained(folder)

    def fingerprint(self) -> str:
        """A hash of vocabulary, merges, special tokens and template, which decide the behaviour."""
        rules, backend = None, getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:  # a fast tokenizer: its merges and text rules
            whole = json.loads(backend.to_str())
            rules = [whole.get(name) for name in ("normalizer", "pre_tokenizer", "model")]
        content = [self.vocabulary_hash(), rules, self.template, self.pad_id]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()

    def vocabulary_hash(self) -> str:
        """A hash of ids and EOS: models with equal hashes can read each other's ids. Padding is excluded."""
        vocabulary = [(text, number) for text, number in self.tokenizer.get_vocab().items() if number != self.pad_id]
        content = [sorted(vocabulary), self.eos_id]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


def load_tokenizer(path: str, template: str | None = None) -> ChatTokenizer:
    """Loads and audits the tokenizer of a model folder or hub id.

    Args:
        path: model folder or hub id.
        template: preset or file; None takes the template inside the tokenizer.

    Raises: TokenizerError or TemplateError with the fix.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TokenizerError(
            f"cannot load a tokenizer from {path}: {error}", fix="put the tokenizer's files beside the model's"
        ) from error
    return audited(tokenizer, template, where=path)


def audited(tokenizer: Any, template: str | None, *, where: str) -> ChatTokenizer:
    """Checks a tokenizer and sets its padding token, template and input names."""
    tokenizer.model_input_names = ["input_ids", "attention_mask"]  # GPT-NeoX refuses token_type_ids
    if template is not None:
        tokenizer.chat_template = template_text(template)
    if isinstance(tokenizer.chat_template, dict):  # several by name: for chats, tools, documents
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if not isinstance(tokenizer.chat_template, str):
        raise TokenizerError(
            "the tokenizer has no chat template",
            where=where,
            fix="set data.template to kullm, kullm-input, vaiv-reward, polyglot-chat or a Jinja file",
        )
    special = tuple(sorted({str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}))
    before = tokenizer.eos_token
    _end_by_template(tokenizer, special)
    eos_id = _checked_eos(tokenizer, where)
    pad_id = _padding_apart_from(tokenizer, eos_id)
    _check_hangul(tokenizer, where)
    audit_template(tokenizer.chat_template, tokenizer.eos_token, _special(tokenizer))
    special = tuple(sorted({str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}))
    changes = history_changes(tokenizer.chat_template, _special(tokenizer))
    notes = tuple(_notes(tokenizer, before, changes=changes))
    return ChatTokenizer(tokenizer, tokenizer.chat_template, eos_id, pad_id, special, changes, notes)


def _notes(tokenizer: Any, eos_before: str | None, *, changes: bool) -> Iterator[str]:
    if has_spans(tokenizer.chat_template):
        return
    yield f"chat template: the model's own; an answer is its text and {tokenizer.eos_token}"
    if eos_before != tokenizer.eos_token:
        yield f"EOS is {tokenizer.eos_token}, which ends an answer in the template, instead of {eos_before}"
    if changes:
        yield "chat template: earlier answers are written otherwise than they are opened; only the last can be learnt"


def _special(tokenizer: Any) -> dict[str, str]:
    """The special tokens that templates ask for."""
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    return {name: getattr(tokenizer, name, None) or "" for name in names}


def _end_by_template(tokenizer: Any, special: Sequence[str]) -> None:
    """Makes the token that ends an answer in a stock template the EOS: a base model's own ends documents."""
    end = stock_end(tokenizer.chat_template, tokenizer.eos_token or "", _special(tokenizer), special)
    if end and end != tokenizer.eos_token:
        tokenizer.eos_token = end


def _checked_eos(tokenizer: Any, where: str) -> int:
    if tokenizer.eos_token is None or tokenizer.eos_token_id is None:
        raise TokenizerError(
            "the tokenizer has no EOS token",
            where=where,
            expected="eos_token in tokenizer_config.json: without it no answer ever ends",
            fix='add "eos_token": "<|endoftext|>" (or the token your model was trained with)',
        )
    ids = tokenizer(tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    if ids != [tokenizer.eos_token_id]:
        raise TokenizerError(
            f"EOS text {tokenizer.eos_token!r} becomes tokens {ids}, not [{tokenizer.eos_token_id}]",
            where=where,
            expected="EOS as one special token",
            fix="add it as a special token: tokenizer.add_special_tokens({'eos_token': ...}) and save",
        )
    return int(tokenizer.eos_token_id)


def _padding_apart_from(tokenizer: Any, eos_id: int) -> int:
    """A padding id other than EOS: the existing one, an unused token, or a new one."""
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == eos_id:
        vocabulary = tokenizer.get_vocab()
        name = next((name for name in PAD_NAMES if vocabulary.get(name, eos_id) != eos_id), NEW_PAD)
        tokenizer.add_special_tokens({"pad_token": name})
    return int(tokenizer.pad_token_id)


def _check_hangul(tokenizer: Any, where: str) -> None:
    ids = tokenizer(HANGUL_PROBE, add_special_tokens=False)["input_ids"]
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if text.strip() != HANGUL_PROBE:
        raise TokenizerError(
            f"Hangul does not survive encoding and decoding: {text!r}",
            where=where,
            expected=repr(HANGUL_PROBE),
            fix="use a tokenizer with byte fallback or full Hangul coverage, without NFD normalisation",
        )
