"""A report in the terminal, and the table of the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from rlhf.plan.machine import GIGABYTE
from rlhf.plan.memory import MemoryPlan
from rlhf.plan.report import PlanReport
from rlhf.plan.steps import MAX_WARMUP_SHARE

SMALLEST = 0.005  # GB; smaller values are shown as a dot


def show(report: PlanReport, console: Console) -> None:
    """Prints parts by role at the peak, the bytes of every phase, whether it fits, time and the launch command."""
    console.print(_title(report), highlight=False)
    console.print(parts_table(report))
    console.print(phases_table(report))
    for line in closing_lines(report):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _title(report: PlanReport) -> str:
    machine = report.machine
    models = ", ".join(f"{role} {shape.name} ({shape.parameters / 1e9:.2f}e9)" for role, shape in report.shapes.items())
    kind = "GPUs" if machine.device == "gpu" else "CPU processes"
    zero = report.config.deepspeed.zero_stage
    where = f"{machine.ranks} {kind} of {gigabytes(machine.memory)} GB"
    return f"stage {report.stage}, ZeRO {zero}, {report.config.model.dtype}, {where}; planned, not measured\n{models}"


def parts_table(report: PlanReport) -> Table:
    """GB of one rank at the peak: a column per role, a row per part."""
    found = report.plan.by_role(report.plan.largest)
    parts = list(dict.fromkeys(part for row in found.values() for part in row))
    table = Table(title=f"GB per rank at the peak ({report.plan.largest})", title_justify="left")
    table.add_column("part")
    for role in found:
        table.add_column(role, justify="right")
    for part in parts:
        table.add_row(part, *(_cell(found[role].get(part)) for role in found))
    table.add_section()
    table.add_row("total", *(gigabytes(sum(row.values())) for row in found.values()))
    return table


def phases_table(report: PlanReport) -> Table:
    """GB of one rank in each phase, the largest marked."""
    table = Table(title="GB per rank by phase", title_justify="left")
    table.add_column("phase")
    table.add_column("GB", justify="right")
    for name in report.plan.phases:
        mark = "  <- peak" if name == report.plan.largest else ""
        table.add_row(name + mark, gigabytes(report.plan.phase_bytes(name)))
    return table


def closing_lines(report: PlanReport) -> Iterator[str]:
    """Verdict, change that fits, time, launch command."""
    peak, memory = gigabytes(report.plan.peak), gigabytes(report.machine.memory)
    yield f"peak {peak} GB of {memory} GB: {'fits' if report.fits else 'does NOT fit'}"
    if report.plan.host_bytes:
        on_node = report.plan.host_bytes * report.machine.gpus
        yield f"CPU memory for what is offloaded: {gigabytes(on_node)} GB on each machine"
    if not report.fits:
        yield from _remedies(report)
    yield from _effort_lines(report)
    yield f"launch: {report.line}"
    if report.hosts:
        yield "hostfile (replace the names):"
        yield report.hosts.rstrip()


def _remedies(report: PlanReport) -> Iterator[str]:
    if report.fit is None:
        yield "no set of up to four settings makes it fit"
    else:
        yield f"cheapest change that fits ({needed(report.fit.plan)}): {report.fit.words}"
        yield from (f"  {change.text}: {change.price}" for change in report.fit.changes)
    if report.more_ranks:
        yield f"or, as configured, {report.more_ranks} ranks"


def _effort_lines(report: PlanReport) -> Iterator[str]:
    effort, unit = report.effort, "iterations" if report.stage == "ppo" else "optimizer steps"
    rows = f"{effort.rows:,} rows" if not effort.assumed else f"for each {effort.rows:,} rows (data.train is not there)"
    yield (
        f"{rows}: {effort.steps:,} {unit} ({effort.updates:,} updates), at most {effort.tokens / 1e6:,.2f}M tokens; "
        f"warm-up {effort.warmup} steps, {effort.warmup_share:.0%} of the run"
        + (" - MORE THAN 30 %: training refuses it" if effort.warmup_share > MAX_WARMUP_SHARE else "")
    )
    speed = "312 TFLOP/s" if report.machine.device == "gpu" else "0.1 TFLOP/s"
    yield (
        f"{effort.flops:.2e} FLOPs: about {effort.hours:.2f} hours at {effort.utilisation:.0%} of {speed} per rank, "
        "without evaluation and saving"
    )


def needed(plan: MemoryPlan) -> str:
    """The peak of a rank, and its offloaded bytes in CPU memory."""
    beside = f" + {gigabytes(plan.host_bytes)} GB of CPU memory" if plan.host_bytes else ""
    return f"{gigabytes(plan.peak)} GB{beside}"


def _cell(value: float | None) -> str:
    return "" if value is None else gigabytes(value) if value >= SMALLEST * GIGABYTE else "."


def gigabytes(value: float) -> str:
    """Bytes as GB (1e9), to two decimals below ten."""
    size = value / GIGABYTE
    return f"{size:.2f}" if size < 9.995 else f"{size:.1f}"


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; columns as in the first row."""
    names = list(rows[0])
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(str(row[name]) for name in names) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)
