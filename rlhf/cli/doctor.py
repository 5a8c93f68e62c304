"""`rlhf doctor`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING

from rlhf.cli.parser import Command
from rlhf.config.stages import STAGES, stage_of

if TYPE_CHECKING:
    from rlhf.doctor.checks import Check
    from rlhf.doctor.machine import MachineFacts


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="YAML file of a stage: would that run start here?")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as the stage takes them")
    named = "stage of the file (default: the file's name, if it is that of a stage)"
    parser.add_argument("--stage", choices=tuple(STAGES), help=named)
    proofs = "leave out the proofs of the fast paths, which can take two minutes where an op must be built first"
    parser.add_argument("--no-proofs", dest="proofs", action="store_false", help=proofs)
    parser.add_argument("--json", action="store_true", help="the checks as JSON")


def run_doctor(arguments: argparse.Namespace) -> int:
    """`rlhf doctor`; status 1 when a check failed."""
    stage = stage_of(arguments.config, arguments.stage) if arguments.config else ""
    from rlhf.doctor.reading import read_machine
    from rlhf.doctor.render import as_json, failures, show

    with _chatter_on_stderr():
        sections = _sections(arguments, stage, read_machine())
    if arguments.json:
        sys.stdout.write(as_json(sections) + "\n")
    else:
        from rich.console import Console

        show(sections, Console())
    return 1 if failures(sections) else 0


def _sections(arguments: argparse.Namespace, stage: str, facts: MachineFacts) -> dict[str, list[Check]]:
    from rlhf.doctor.facts import facts_said
    from rlhf.doctor.misfits import misfits

    sections = {"this machine": facts_said(facts), "does it fit together": misfits(facts)}
    if stage:
        from rlhf.train.run.would_start import start_checks

        title = f"would {arguments.config} start here"
        sections[title] = start_checks(stage, arguments.config, arguments.overrides, facts)
    if arguments.proofs:
        sections["are the fast paths right"] = _proofs()
    return sections


def _proofs() -> list[Check]:
    """On the GPU in bfloat16 where there is one, otherwise on the CPU in float32."""
    import torch

    from rlhf.doctor.proofs import all_proofs
    from rlhf.engine.op_builds import guard_op_builds

    guard_op_builds()
    if torch.cuda.is_available():
        return all_proofs(torch.device("cuda", 0), torch.bfloat16)
    return all_proofs(torch.device("cpu"), torch.float32)


def _chatter_on_stderr() -> contextlib.AbstractContextManager[object]:
    """DeepSpeed prints while it builds an op, which would spoil the JSON."""
    return contextlib.redirect_stdout(sys.stderr)


COMMAND = Command(
    "doctor",
    "what this machine has, what does not fit, and whether a run would start",
    run_doctor,
    _flags,
    description="Lists what the machine has; checks that driver, torch, DeepSpeed, packages and /dev/shm fit together; "
    "proves the fast paths against the plain ones; and, with a configuration, gives every reason why that run would "
    "not start here. A failed check prints its fix. Exit status 1 when a check failed.",
    epilog="example: rlhf doctor configs/kullm-5.8b/ppo.yaml model.quantize=4bit",
)
