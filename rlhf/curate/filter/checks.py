"""The filters that look at a row alone. Each returns the text for which the row is dropped, or ""."""

from __future__ import annotations

from collections.abc import Callable

from rlhf.curate.privacy import find_personal
from rlhf.curate.refusals import is_boilerplate
from rlhf.curate.row_texts import RowTexts, texts_of
from rlhf.curate.rude import contains_rude
from rlhf.curate.text_faults import cleaned
from rlhf.data.korean import hangul_share
from rlhf.data.readers import Row
from rlhf.errors import TokenizerError

Check = Callable[[Row, RowTexts], str]


def loses_a_text(row: Row) -> bool:
    """Whether nothing is left of one of the texts when it is cleaned."""
    return any(text.strip() and not cleaned(text) for _, text in texts_of(row))


def emptied(row: Row, texts: RowTexts) -> str:
    return texts.prompt if loses_a_text(row) else ""


def with_boilerplate(_: Row, texts: RowTexts) -> str:
    return next(filter(is_boilerplate, texts.learnt or (texts.prompt,)), "")


def shorter_than(minimum: int) -> Check:
    return lambda _, texts: texts.prompt if sum(map(len, texts.prompt.split())) < minimum else ""


def longer_than(maximum: int, folder: str) -> Check:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TokenizerError(f"cannot load a tokenizer from {folder}: {error}", where="--tokenizer") from error

    def check(_: Row, texts: RowTexts) -> str:
        pieces = [texts.prompt, *texts.answers]
        prompt, *answers = map(len, tokenizer(pieces, add_special_tokens=False)["input_ids"])
        return texts.prompt if prompt + max(answers, default=0) > maximum else ""

    return check


def less_hangul_than(share: float) -> Check:
    def check(_: Row, texts: RowTexts) -> str:
        pieces = [text for text in (texts.prompt, *texts.learnt) if any(map(str.isalpha, text))]
        return next((text for text in pieces if hangul_share(text) < share), "")

    return check


def rude_in(where: str) -> Check:
    def check(_: Row, texts: RowTexts) -> str:
        prompt = (texts.prompt,) if where != "answer" else ()
        return next(filter(contains_rude, (*prompt, *(texts.learnt if where != "prompt" else ()))), "")

    return check


def with_personal(row: Row, _: RowTexts) -> str:
    found = (find_personal(text) for _, text in texts_of(row))
    return ", ".join(next(filter(None, found), ()))  # the kinds found, not the information itself
