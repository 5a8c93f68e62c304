"""What a tokenizer puts around a text, and how a sequence therefore starts in training, rollout, serving and export.

Many tokenizers start every text with a BOS, and a few end it with an EOS; a rendered conversation is tokenised without
either, so a template that writes no BOS would train a model that its exported tokenizer then reads differently. The
audit compares both encodings of a text. A start is followed: the template is made to write it. An end is switched off:
behind a prompt it would tell the model that the answer is over.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jinja2
from tokenizers.processors import TemplateProcessing

from rlhf.errors import TokenizerError

PROBES = ("안녕하세요? 뷁", "3시 반, e-mail.")
TURN = [{"role": "user", "content": PROBES[0]}]


class Around(NamedTuple):
    """The ids that a tokenizer adds before and after a text."""

    start: tuple[int, ...]
    end: tuple[int, ...]


def follow_start(tokenizer: Any, where: str) -> tuple[tuple[int, ...], list[str]]:
    """Makes the chat template start as the tokenizer starts a text; the ids of that start, and what was decided.

    Changes `tokenizer.chat_template` where it writes no start, and the tokenizer where it ends every text.

    Raises: TokenizerError when the ids of a text depend on what is put around it, or an end cannot be switched off.
    """
    around, notes = ids_around(tokenizer, where), []
    if around.end:
        added = tokenizer.convert_ids_to_tokens(list(around.end))
        _add_no_end(tokenizer, around)
        if ids_around(tokenizer, where).end:
            raise TokenizerError(
                f"the tokenizer ends every text with {added}, and this cannot be switched off",
                where=where,
                fix="set add_eos_token to false in tokenizer_config.json",
            )
        notes.append(f"tokenizer: it ended every text with {' '.join(added)}; switched off, in the export too")
    if not around.start:
        return (), notes
    text = "".join(tokenizer.convert_ids_to_tokens(list(around.start)))
    if tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) != around.start:
        raise TokenizerError(
            f"the tokenizer starts every text with tokens {list(around.start)}, whose text {text!r} is read as others",
            where=where,
            expected="special tokens that are read as themselves",
            fix="add them as special tokens, or set add_bos_token to false in tokenizer_config.json",
        )
    if not _opening(tokenizer).startswith(text):
        written = "bos_token" if around.start == (tokenizer.bos_token_id,) else repr(text)
        tokenizer.chat_template = f"{{{{- {written} }}}}{tokenizer.chat_template}"
        notes.append(f"sequences start with {text}, as the tokenizer starts a text; added to the chat template")
    return around.start, notes


def ids_around(tokenizer: Any, where: str) -> Around:
    """What the tokenizer adds to a text, which must be the same for every text."""
    found = {_added(tokenizer, text, where) for text in PROBES}
    if len(found) > 1:
        raise TokenizerError(f"the tokenizer starts or ends texts differently: {sorted(found)}", where=where)
    return found.pop()


def _added(tokenizer: Any, text: str, where: str) -> Around:
    plain, whole = (tokenizer(text, add_special_tokens=added)["input_ids"] for added in (False, True))
    for place in range(len(whole) - len(plain) + 1):
        if whole[place : place + len(plain)] == plain:
            return Around(tuple(whole[:place]), tuple(whole[place + len(plain) :]))
    raise TokenizerError(
        f"the ids of a text change when special tokens are put around it: {plain} and {whole}",
        where=where,
        expected="the same ids, with tokens before or after them",
        fix="use a tokenizer whose post-processor only adds tokens",
    )


def _add_no_end(tokenizer: Any, around: Around) -> None:
    """Switches off the end: by the tokenizer's own switch, which it saves, else in the post-processor."""
    if getattr(tokenizer, "add_eos_token", False):
        tokenizer.add_eos_token = False
        return
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        start = tokenizer.convert_ids_to_tokens(list(around.start))
        backend.post_processor = TemplateProcessing(
            single=[*start, "$A"],
            pair=[*start, "$A", "$B:1"],
            special_tokens=list(zip(start, around.start, strict=True)),
        )


def _opening(tokenizer: Any) -> str:
    """The text of a first turn; "" where the template fails, which its own audit reports."""
    try:
        return str(tokenizer.apply_chat_template(TURN, tokenize=False, add_generation_prompt=True))
    except (jinja2.TemplateError, TypeError):
        return ""
