"""`rlhf keys`: who may use `rlhf serve`."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.cli.parser import Command, Group
from rlhf.config.flag_values import positive

if TYPE_CHECKING:
    from rlhf.serve.keys import KeyStore


def _file(parser: argparse.ArgumentParser) -> None:
    from rlhf.serve.options import KEYS_FILE

    shown = "file that holds the keys (default: %(default)s)"
    parser.add_argument("--keys", type=Path, default=KEYS_FILE, metavar="FILE", help=shown)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="who it is for")
    requests = "further requests in a minute are refused (default: no limit)"
    parser.add_argument("--requests-per-minute", type=positive, metavar="N", help=requests)
    tokens = "tokens of prompts and answers (default: no limit)"
    parser.add_argument("--tokens-per-day", type=positive, metavar="N", help=tokens)
    _file(parser)


def _revoke_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name or id of the key")
    _file(parser)


def run_keys_add(arguments: argparse.Namespace) -> int:
    """`rlhf keys add`: only the key on stdout."""
    from rlhf.serve.keys import KeyStore

    store = KeyStore(arguments.keys)
    key = store.add(
        arguments.name,
        requests_per_minute=arguments.requests_per_minute,
        tokens_per_day=arguments.tokens_per_day,
    )
    store.close()
    sys.stdout.write(f"{key}\n")
    sys.stderr.write("keep it now: the file holds only its hash, and it is not shown again\n")
    return 0


def run_keys_list(arguments: argparse.Namespace) -> int:
    """`rlhf keys list`."""
    store = _existing(arguments.keys)
    today = datetime.now(UTC).date().isoformat()
    rows = [["id", "name", "made", "per minute", "per day", "today", ""]]
    for key in store.all():
        limits = (str(limit or "-") for limit in (key.requests_per_minute, key.tokens_per_day))
        ended = f"revoked {_date(key.revoked_at)}" if key.revoked_at else ""
        rows.append([key.id, key.name, _date(key.created_at), *limits, str(store.spent(key.id, today)), ended])
    store.close()
    for row in rows:
        sys.stdout.write("\t".join(row).rstrip() + "\n")
    return 0


def run_keys_revoke(arguments: argparse.Namespace) -> int:
    """`rlhf keys revoke`."""
    store = _existing(arguments.keys)
    key = store.revoke(arguments.name)
    store.close()
    sys.stdout.write(f"{key.id} ({key.name}) is revoked\n")
    return 0


def _existing(file: Path) -> KeyStore:
    """The store, which must exist: opening would make it."""
    from rlhf.errors import ConfigError
    from rlhf.serve.keys import KeyStore

    if not file.is_file():
        raise ConfigError(f"{file} does not exist", where="--keys", fix="rlhf keys add NAME makes it")
    return KeyStore(file)


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


GROUP = Group(
    "keys",
    "API keys of `rlhf serve`: make, list, revoke",
    (
        Command("add", "make a key and show it", run_keys_add, _add_flags, epilog="example: rlhf keys add web-demo"),
        Command("list", "all keys, limits, today's tokens", run_keys_list, _file, epilog="example: rlhf keys list"),
        Command("revoke", "end a key", run_keys_revoke, _revoke_flags, epilog="example: rlhf keys revoke web-demo"),
    ),
    metavar="ACTION",
    description="Keys are stored as hashes; a key is shown once, when it is made. A revoked key stops working at once, "
    "also in a service that is running. Each key has its own limits.",
    epilog="examples:\n"
    "  rlhf keys add 민수 --requests-per-minute 60 --tokens-per-day 200000\n"
    "  rlhf keys list\n"
    "  rlhf keys revoke 민수",
)
