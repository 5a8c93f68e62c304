"""`rlhf keys`: who may use `rlhf serve`."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.cli.parser import Commands

if TYPE_CHECKING:
    from rlhf.serve.keys import KeyStore

DEFAULT_FILE = "runs/serve/keys.sqlite"
EPILOG = """examples:
  rlhf keys add 민수 --requests-per-minute 60 --tokens-per-day 200000
  rlhf keys list
  rlhf keys revoke 민수
"""


def add(commands: Commands) -> None:
    """The command and its flags."""
    keys = commands.add_parser(
        "keys",
        help="API keys of `rlhf serve`: make, list, revoke",
        description="Keys are kept as hashes; a key is shown once, when it is made. A revoked key ends at once, also "
        "in a service that is running. Limits are a key's own.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = keys.add_subparsers(required=True, metavar="ACTION")
    make = actions.add_parser("add", help="make a key and show it", epilog="example: rlhf keys add web-demo")
    make.add_argument("name", metavar="NAME", help="who it is for")
    make.add_argument("--requests-per-minute", type=_count, metavar="N", help="more are refused (default: no limit)")
    make.add_argument("--tokens-per-day", type=_count, metavar="N", help="prompt and answer (default: no limit)")
    make.set_defaults(handler=run_keys_add)
    show = actions.add_parser("list", help="all keys, limits, today's tokens", epilog="example: rlhf keys list")
    show.set_defaults(handler=run_keys_list)
    end = actions.add_parser("revoke", help="end a key", epilog="example: rlhf keys revoke web-demo")
    end.add_argument("name", metavar="NAME", help="name or id of the key")
    end.set_defaults(handler=run_keys_revoke)
    for action in (make, show, end):
        action.add_argument(
            "--keys", default=DEFAULT_FILE, metavar="FILE", help="file that holds them (default: %(default)s)"
        )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def run_keys_add(arguments: argparse.Namespace) -> int:
    """`rlhf keys add`: the key alone on stdout."""
    from rlhf.serve.keys import KeyStore

    store = KeyStore(Path(arguments.keys))
    key = store.add(
        arguments.name,
        requests_per_minute=arguments.requests_per_minute,
        tokens_per_day=arguments.tokens_per_day,
    )
    store.close()
    sys.stdout.write(f"{key}\n")
    sys.stderr.write("keep it now: the file holds a hash of it, and it is not shown again\n")
    return 0


def run_keys_list(arguments: argparse.Namespace) -> int:
    """`rlhf keys list`."""
    store = _existing(arguments.keys)
    today = datetime.now(UTC).date().isoformat()
    rows = [["id", "name", "made", "a minute", "a day", "today", ""]]
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


def _existing(file: str) -> KeyStore:
    """The store, which must be there: opening would make it."""
    from rlhf.errors import ConfigError
    from rlhf.serve.keys import KeyStore

    if not Path(file).is_file():
        raise ConfigError(f"{file} does not exist", where="--keys", fix="rlhf keys add NAME makes it")
    return KeyStore(Path(file))


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
