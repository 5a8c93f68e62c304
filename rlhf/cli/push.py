"""`rlhf push`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rlhf.cli.parser import Command
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.artifacts.publish_options import ExportOptions

    run = "run folder of any stage, which is exported first, or a folder that `rlhf export` wrote"
    parser.add_argument("run", type=Path, metavar="RUN", help=run)
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="repository of the hub; made if it is new")
    parser.add_argument("--public", action="store_true", help="a new repository can be seen by everybody")
    branch = "branch to push to (default: %(default)s)"
    parser.add_argument("--revision", default="main", metavar="BRANCH", help=branch)
    name = "step-000100, latest or best: that checkpoint of the run instead of its finished model"
    parser.add_argument("--checkpoint", metavar="NAME", help=name)
    add_flags(parser.add_argument_group("export of a run"), ExportOptions)


def run_push(arguments: argparse.Namespace) -> int:
    """`rlhf push`. What can be refused is refused before a model is loaded."""
    from rlhf.artifacts.push import check_push, is_exported, push

    user = check_push(arguments.repo)
    sys.stderr.write(f"pushing to {arguments.repo} as {user}\n")
    if is_exported(arguments.run):
        _refuse_export_flags(arguments)
        pushed = push(arguments.run, arguments.repo, public=arguments.public, revision=arguments.revision)
    else:
        with TemporaryDirectory(prefix=".push-", dir=arguments.run.parent) as scratch:
            folder = Path(scratch) / arguments.repo.rpartition("/")[2]
            sys.stderr.write(_exported(arguments, folder) + "\n")
            pushed = push(folder, arguments.repo, public=arguments.public, revision=arguments.revision)
    sys.stdout.write(pushed.summary() + "\n")
    return 0


def _exported(arguments: argparse.Namespace, folder: Path) -> str:
    """Exports the run into a folder; the summary of the export."""
    from rlhf.artifacts.publish import check_request, publish
    from rlhf.artifacts.publish_options import ExportOptions

    options = fill(ExportOptions, arguments)
    check_request(arguments.run, folder, options)
    if arguments.checkpoint is None:
        return publish(arguments.run, folder, options).summary()
    from rlhf.train.checkpoint_export import publish_checkpoint

    return publish_checkpoint(arguments.run, folder, arguments.checkpoint, options).summary()


def _refuse_export_flags(arguments: argparse.Namespace) -> None:
    """Flags of the export say nothing about a folder that is exported already."""
    from rlhf.artifacts.publish_options import ExportOptions
    from rlhf.errors import ArtifactError

    if arguments.checkpoint is not None or fill(ExportOptions, arguments) != ExportOptions():
        problem = f"{arguments.run} is exported already, so that --checkpoint and flags of the export change nothing"
        raise ArtifactError(problem, where="RUN", fix="name the run folder, or omit them")


COMMAND = Command(
    "push",
    "a finished run, or an exported folder, to the Hugging Face hub",
    run_push,
    _flags,
    description="Exports the run as `rlhf export` does, loads what it wrote in a fresh process and compares, then "
    "uploads the folder with its model card in one commit and compares the hub's list of files with it. A new "
    "repository is private unless --public is given.",
    epilog="examples:\n"
    "  rlhf push runs/kullm/ppo --repo my-org/kullm-ppo --dtype bfloat16\n"
    "  rlhf push release/kullm-ppo --repo my-org/kullm-ppo --public",
)
