"""The lines of a text export: UTF-8, CP949 or UTF-16, by itself or in an e-mail, as NFC.

macOS and iCloud write Hangul decomposed (NFD), in which no name and no notice would be recognised.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple

from rlhf.data.lines import KOREAN_ENCODINGS, decoded_lines, encoding_of
from rlhf.errors import DataError

_MARK = "\ufeff"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MAIL = ".eml"
_MAIL_FIELDS = ("from", "mime-version", "content-type", "subject")


class TextLine(NamedTuple):
    """A line without its end; `marked` says that a byte order mark stood before it, where a file began."""

    number: int
    text: str
    end: str
    marked: bool


def text_lines(path: Path) -> Iterator[TextLine]:
    """The lines of an export.

    Raises:
        DataError: with file and line, for bytes that are not text.
    """
    for number, raw in _numbered(path):
        end = next((end for end in ("\r\n", "\n") if raw.endswith(end)), "")
        text = raw.removesuffix(end)
        yield TextLine(number, composed(text.lstrip(_MARK)), end, text.startswith(_MARK) or number == 1)


def composed(text: str) -> str:
    """`text` in NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as stream:
        start = stream.read(2)
    if start in _UTF_16:
        return _lines_of(_utf_16(path))
    if path.suffix.lower() == _MAIL and (letter := _letter(path)) is not None:
        return _lines_of(letter)
    return decoded_lines(path, encoding_of(path))


def _lines_of(text: str) -> Iterator[tuple[int, str]]:
    lines = text.removeprefix(_MARK).split("\n")
    yield from enumerate((f"{line}\n" for line in lines[:-1]), 1)
    if lines[-1]:
        yield len(lines), lines[-1]


def _utf_16(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-16")
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} of a UTF-16 file is not UTF-16: {error.reason}"
        raise DataError(problem, where=f"{path}:1", fix="export the chat again") from None


def _letter(path: Path) -> str | None:
    """All texts in an e-mail one after the other; None for a file that is no e-mail, whatever its name."""
    letter = message_from_bytes(path.read_bytes(), policy=policy.default)
    if not any(letter[field] for field in _MAIL_FIELDS):
        return None
    texts = (_decoded(part) for part in letter.walk() if isinstance(part, EmailMessage) and _is_text(part))
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts)


def _is_text(part: EmailMessage) -> bool:
    kind = part.get_content_maintype(), part.get_content_subtype()
    return kind == ("text", "plain") or (part.get_filename() or "").lower().endswith((".txt", ".csv"))


def _decoded(part: EmailMessage) -> str:
    content = part.get_payload(decode=True)
    raw = content if isinstance(content, bytes) else b""
    for encoding in (part.get_content_charset(), *KOREAN_ENCODINGS, "utf-16"):
        try:
            return raw.decode(encoding) if encoding else raw.decode("utf-8")
        except (LookupError, UnicodeDecodeError):
            continue
    return raw.decode("utf-8", "replace")
