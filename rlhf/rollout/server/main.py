"""The process of a rollout engine: `ENV/bin/python rlhf/rollout/server/main.py --connect SOCKET`.

It is started by its path, in an environment that need not have this project. Its folder becomes the package
`rollout_server`; the folder's parents are not put on the path, where they would hide the environment's packages. vLLM
starts workers by running this file again under another name, so the package is made there as well.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

PACKAGE = "rollout_server"


def make_package() -> None:
    """Makes the modules beside this file importable as `rollout_server`."""
    folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != folder]
    if PACKAGE in sys.modules:
        return
    places = [str(folder)]
    spec = importlib.util.spec_from_file_location(PACKAGE, folder / "__init__.py", submodule_search_locations=places)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


def flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the process."""
    parser.add_argument("--connect", metavar="SOCKET", required=True, help="Unix socket of the trainer that waits")
    parser.add_argument("--parent", metavar="PID", type=int, help="end when this process, which started it, ends")


def connect(arguments: argparse.Namespace) -> object:
    """Connects to the trainer; from here on this process ends with it."""
    import socket

    from rollout_server import guard, wire  # type: ignore[import-not-found]

    if arguments.parent is not None:
        guard.end_with(arguments.parent, sys.stdin.fileno())
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(arguments.connect)
    return wire.Channel(connection)


def main() -> int:
    """Serves one trainer with vLLM; the exit status."""
    parser = argparse.ArgumentParser(prog="rollout-server", description="A rollout engine (vLLM) for one trainer.")
    flags(parser)
    channel = connect(parser.parse_args())
    from rollout_server import loop, vllm_engine

    return int(loop.serve(channel, vllm_engine.VllmEngine))


make_package()
if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # threads of torch and vLLM can abort an interpreter that unwinds
