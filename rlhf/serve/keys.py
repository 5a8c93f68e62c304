"""API keys. A key is shown once, when it is created; the file holds the hash of its secret.

A key is `rlhf-ID-SECRET`. The secret is 256 random bits, which cannot be guessed however fast the hash is, so one
SHA-256 is enough; the id finds the row, and the hashes are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from rlhf.artifacts.database import Database
from rlhf.errors import ConfigError

SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, hash BLOB NOT NULL, created_at INTEGER NOT NULL, revoked_at INTEGER,
  requests_per_minute INTEGER, tokens_per_day INTEGER);
CREATE TABLE IF NOT EXISTS spent (key TEXT NOT NULL, day TEXT NOT NULL, tokens INTEGER NOT NULL,
  PRIMARY KEY (key, day));
"""
_FORM = re.compile(r"rlhf-([0-9a-f]{12})-([\w-]{43})", re.ASCII)
_NOBODY = hashlib.sha256(b"").digest()  # compared where there is no such key, so that it takes as long


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret; a limit of None is no limit."""

    id: str
    name: str
    created_at: int
    revoked_at: int | None
    requests_per_minute: int | None
    tokens_per_day: int | None


class KeyStore:
    """The keys in one file."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, SCHEMA, option="--keys")
        self.close = self._database.close

    def add(self, name: str, *, requests_per_minute: int | None = None, tokens_per_day: int | None = None) -> str:
        """Creates a key and returns it, the only time it can be read.

        Raises: ConfigError for an empty name, or one that a key in use has.
        """
        if not name.strip() or not name.isprintable():
            raise ConfigError(f"{name!r} is not a name", expected="who the key is for, such as 민수 or web-demo")
        identifier, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        with self._database.change():
            if self._database.row("SELECT id FROM keys WHERE name = ? AND revoked_at IS NULL", name):
                raise ConfigError(f"{name} has a key already", fix=f"choose another name, or rlhf keys revoke {name}")
            values = (identifier, name, _hashed(secret), int(time.time()), requests_per_minute, tokens_per_day)
            self._database.run("INSERT INTO keys VALUES (?, ?, ?, ?, NULL, ?, ?)", *values)
        return f"rlhf-{identifier}-{secret}"

    def all(self) -> list[ApiKey]:
        """All keys, revoked ones too, oldest first."""
        return [_key(row) for row in self._database.rows("SELECT * FROM keys ORDER BY created_at, rowid")]

    def revoke(self, name: str) -> ApiKey:
        """Revokes a key by its name or its id, at once.

        Raises: ConfigError when no key in use has that name.
        """
        with self._database.change():
            row = self._database.row("SELECT * FROM keys WHERE ? IN (name, id) AND revoked_at IS NULL", name)
            if row is None:
                known = ", ".join(key.name for key in self.all() if key.revoked_at is None)
                raise ConfigError(f"no key in use is named {name}", expected=known or "none is in use")
            self._database.run("UPDATE keys SET revoked_at = ? WHERE id = ?", int(time.time()), row["id"])
        return _key(row)

    def find(self, token: str) -> ApiKey | None:
        """The key in use of that text, or None."""
        match = _FORM.fullmatch(token)
        identifier, secret = match.groups() if match else ("", "")
        row = self._database.row("SELECT * FROM keys WHERE id = ? AND revoked_at IS NULL", identifier)
        same = hmac.compare_digest(_NOBODY if row is None else row["hash"], _hashed(secret))
        return _key(row) if row is not None and same else None

    def spend(self, identifier: str, day: str, tokens: int) -> None:
        statement = "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT (key, day) DO UPDATE SET tokens = tokens + ?"
        self._database.run(statement, identifier, day, tokens, tokens)

    def spent(self, identifier: str, day: str) -> int:
        """Tokens a key has used on a day."""
        query = "SELECT tokens FROM spent WHERE key = ? AND day = ?"
        return self._database.value(query, identifier, day) or 0


def _hashed(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _key(row: sqlite3.Row) -> ApiKey:
    return ApiKey(**{name: row[name] for name in ApiKey.__slots__})
