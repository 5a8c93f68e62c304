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

from rlhf.data.answer_spans import AnswerForm, TextSpan
from rlhf.data.continuation import PieceTokenizer
from rlhf.data.records import Message
from rlhf.data.sequence_start import follow_start
from rlhf.data.template_defaults import with_defaults
from rlhf.data.templates import PLAIN_PRESETS, PRESETS, Audited, find_form, preset_tokens, render_pieces, template_text
from rlhf.errors import DataError, TemplateError, TokenizerError

HANGUL_PROBE = "안녕하세요? 오늘은 날씨가 참 좋네요! 뷁쉙 ㅋㅋㅋ ㅠㅠ 값어치 닭볶음탕 3시 반, e-mail."
PAD_NAMES = ("<|padding|>", "<pad>", "[PAD]", "<|pad|>", "<|unused0|>", "<unused0>", "<|reserved_special_token_0|>")
NEW_PAD = "<|padding|>"
OTHER_ROW = "leave out the turns that this template does not know, or set data.template to one that does"


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    """A Hugging Face tokenizer that passed the audit, and its template.

    start: the ids that every sequence starts with, such as BOS; empty for a tokenizer that adds none.
    piece_tokenizer: tokenises the pieces of a sequence.
    form: how the template writes an answer.
    marked: whether its generation spans say where answers are.
    notes: what the audit changed or decided, for people to read.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str
    eos_id: int
    pad_id: int
    special_texts: tuple[str, ...]
    start: tuple[int, ...]
    piece_tokenizer: PieceTokenizer
    form: AnswerForm
    marked: bool = True
    notes: tuple[str, ...] = ()

    def pieces(self, messages: Sequence[Message], *, open_answer: bool = False, calls: bool = False) -> list[TextSpan]:
        """The conversation as text, split at the boundaries of its answers; with `calls`, of turns that call tools too.

        Raises: DataError for a conversation that the template cannot write, such as one with a system turn.
        """
        form = None if self.marked else self.form
        try:
            return render_pieces(
                self.template, messages, _special(self.tokenizer), form, open_answer=open_answer, calls=calls
            )
        except TemplateError as error:
            raise DataError(error.problem, expected=error.expected, fix=error.fix or OTHER_ROW) from error

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text: nothing is added, and the text of special tokens becomes special tokens."""
        if not texts:
            return []
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def piece_ids(self, pieces: Sequence[str]) -> list[list[int]]:
        """The ids of each piece of one sequence, as they are within the whole (see `continuation`)."""
        return self.piece_tokenizer.ids(pieces)

    def text_ids(self, text: str) -> list[int]:
        """The ids of a text that is a sequence of its own, with the tokenizer's start unless the text has it."""
        (ids,) = self.token_ids([text])
        return ids if tuple(ids[: len(self.start)]) == self.start else [*self.start, *ids]

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
        _check_preset(tokenizer, template)
        tokenizer.chat_template = template_text(template)
    if isinstance(tokenizer.chat_template, dict):  # several by name: for chats, tools, documents
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if not isinstance(tokenizer.chat_template, str):
        raise TokenizerError(
            "the tokenizer has no chat template",
            where=where,
            fix=f"set data.template to a Jinja file or to one of {', '.join(PRESETS)}",
        )
    tokenizer.chat_template, notes = with_defaults(tokenizer.chat_template)
    start, said = follow_start(tokenizer, where)
    before, special = tokenizer.eos_token, _special_texts(tokenizer)
    found = find_form(tokenizer.chat_template, before or "", _special(tokenizer), special, stock=template is None)
    if found.form.eos:  # a base model's own ends documents
        tokenizer.eos_token = found.form.eos
    eos_id = _checked_eos(tokenizer, where)
    pad_id = _padding_apart_from(tokenizer, eos_id)
    require_hangul(
        tokenizer, where, fix="use a tokenizer with byte fallback or full Hangul coverage, without NFD normalisation"
    )
    special = _special_texts(tokenizer)
    return ChatTokenizer(
        tokenizer,
        tokenizer.chat_template,
        eos_id,
        pad_id,
        special,
        start,
        PieceTokenizer(tokenizer, special),
        found.form,
        found.marked,
        (*notes, *said, *_notes(found, before)),
    )


def _check_preset(tokenizer: Any, name: str) -> None:
    """Refuses a preset whose tokens the tokenizer would read as text: the model never saw them as such."""
    tokens = preset_tokens(name) if name in PRESETS else []
    missing = [text for text in tokens if len(tokenizer(text, add_special_tokens=False)["input_ids"]) != 1]
    if missing:
        raise TokenizerError(
            f"the preset {name} writes {', '.join(missing)}, which this tokenizer does not have",
            where="data.template",
            expected=f"a tokenizer with {', '.join(tokens)} as tokens",
            fix="set data.template=null for the model's own template, or a preset of words alone: "
            + ", ".join(PLAIN_PRESETS),
        )


def _special_texts(tokenizer: Any) -> tuple[str, ...]:
    return tuple(sorted({str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}))


def _notes(found: Audited, eos_before: str | None) -> Iterator[str]:
    if not found.marked:
        yield f"chat template: the model's own; an answer is its text and {found.form.end.strip()}"
    if eos_before != found.form.eos:
        yield f"EOS is {found.form.eos}, which ends an answer in the template, instead of {eos_before}"
    if found.form.last_only:
        yield "chat template: earlier answers are written otherwise than they are opened; only the last can be learnt"


def _special(tokenizer: Any) -> dict[str, str]:
    """The special tokens that templates ask for."""
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    return {name: getattr(tokenizer, name, None) or "" for name in names}


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


def require_hangul(tokenizer: Any, where: str, *, fix: str) -> None:
    """Raises TokenizerError for a tokenizer that does not give a Korean text back."""
    ids = tokenizer(HANGUL_PROBE, add_special_tokens=False)["input_ids"]
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if text.strip() != HANGUL_PROBE:
        raise TokenizerError(
            f"Hangul does not survive encoding and decoding: {text!r}",
            where=where,
            expected=repr(HANGUL_PROBE),
            fix=fix,
        )
