"""Gives rows a persona: a system text that their conversation begins with."""

from __future__ import annotations

import unicodedata

from rlhf.data.readers import Row


def with_persona(row: Row, persona: str) -> Row:
    """The row with `persona` as its first message; a row keeps a system text of its own."""
    key = "messages" if "messages" in row else "prompt"
    messages = row[key] if isinstance(row[key], list) else [{"role": "user", "content": row[key]}]
    if messages[0]["role"] == "system":
        return row
    return {**row, key: [{"role": "system", "content": unicodedata.normalize("NFC", persona.strip())}, *messages]}
