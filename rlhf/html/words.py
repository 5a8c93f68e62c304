"""Text in Korean and English. A bilingual page holds both, and its switch shows one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from markupsafe import Markup, escape


class Words(NamedTuple):
    """The same text in both languages; a template writes both, escaped, or one where they are equal."""

    ko: str
    en: str

    def __html__(self) -> Markup:
        if self.ko == self.en:
            return escape(self.en)
        return Markup('<span lang="ko">{}</span><span lang="en">{}</span>').format(self.ko, self.en)

    def format(self, /, *values: Any, **named: Any) -> Words:
        """Both texts with `values` in their places; a value that is Words gives each text its own language."""
        texts = []
        for language, text in zip(self._fields, self, strict=True):
            places = [in_language(value, language) for value in values]
            texts.append(text.format(*places, **{key: in_language(each, language) for key, each in named.items()}))
        return Words(*texts)


def in_language(value: Any, language: str) -> Any:
    """The value with every Words in it, also in lists and pairs, replaced by its text in `language`."""
    if isinstance(value, Words):
        return getattr(value, language)
    if type(value) in (list, tuple):
        return type(value)(in_language(each, language) for each in value)
    return value


def same(text: str) -> Words:
    """A name or a figure, which needs no translation."""
    return Words(text, text)


def joined(parts: Iterable[Words], by: str = " ") -> Words:
    """The texts one after another, empty ones skipped."""
    listed = list(parts)
    return Words(by.join(each.ko for each in listed if each.ko), by.join(each.en for each in listed if each.en))
