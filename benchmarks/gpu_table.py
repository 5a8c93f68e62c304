"""The figures of gpu.py as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GIB = 2**30
Part = Mapping[str, Any]


def table(result: Mapping[str, Any]) -> str:
    """A line for each part that was measured, and the reasons of those that were not."""
    parts: Mapping[str, Part] = result["parts"]
    sizes = result["sizes"]
    blocks = [_heading(result)]
    training = {name: part for name, part in parts.items() if "flops_per_s" in part}
    if training:
        head = ("training step", "tokens/s", "TFLOP/s", "MFU", "peak GiB", "planned GiB")
        blocks.append(_lines(head, [_training(name, part) for name, part in training.items()]))
    if "slots" in parts.get("decode", {}):
        head = ("slots", "ms per decode step", "prefill ms", "tokens/s")
        rows = [
            (slots, f"{each['step_ms']:.2f}", f"{each['prefill_ms']:.1f}", f"{each['tokens_per_s']:,.0f}")
            for slots, each in parts["decode"]["slots"].items()
        ]
        blocks.append(_lines(head, rows))
    if "iteration_s" in parts.get("ppo", {}):
        head = ("PPO iteration", "generation s", "scoring s", "update s", "samples/s", "peak GiB", "planned GiB")
        blocks.append(_lines(head, [_iteration(parts["ppo"], sizes["rollout"])]))
    missing = [f"- {name}: {part.get('skipped') or part.get('error')}" for name, part in parts.items() if _none(part)]
    return "\n\n".join([*blocks, *(["Not measured:\n\n" + "\n".join(missing)] if missing else [])]) + "\n"


def _heading(result: Mapping[str, Any]) -> str:
    sizes, peak = result["sizes"], result["peak_flops_per_s"]
    known = f"peak {peak / 1e12:,.0f} TFLOP/s" if peak else "peak not known, so no MFU"
    packages = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{result['card']} ({known}), driver {result['driver'] or 'none'}; {packages}.\n"
        f"GPT-NeoX of {sizes['layers']} layers of {sizes['hidden']}, {sizes['vocabulary']:,} words, random weights, "
        f"{result['dtype']}, ZeRO 0, one rank. Medians of {sizes['steps']} steps after one that is not counted."
    )


def _training(name: str, part: Part) -> tuple[str, ...]:
    mfu = f"{part['mfu']:.3f}" if "mfu" in part else "-"
    shown = f"{name} {part['attention']}" if "attention" in part else name
    return shown, f"{part['tokens_per_s']:,.0f}", f"{part['flops_per_s'] / 1e12:.3g}", mfu, *_memory(part)


def _iteration(part: Part, samples: int) -> tuple[str, ...]:
    seconds = [f"{part[f'{name}_s']:.2f}" for name in ("generation", "scoring", "update")]
    return f"{samples} samples, {part['attention']}", *seconds, f"{part['samples_per_s']:.2f}", *_memory(part)


def _memory(part: Part) -> tuple[str, str]:
    return f"{part['peak_bytes'] / GIB:.2f}", f"{part['planned_bytes'] / GIB:.2f}"


def _none(part: Part) -> bool:
    return "skipped" in part or "error" in part


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
