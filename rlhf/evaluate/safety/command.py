"""`rlhf evaluate probe`: the red-team set asked of models, with a page of every answer."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf.artifacts.files import write_json, write_text
from rlhf.curate.sample.options import Asking
from rlhf.evaluate.answers.asking import Answered, ask
from rlhf.evaluate.report_folder import report_folder
from rlhf.evaluate.safety.page import render_page
from rlhf.evaluate.safety.rates import HARMFUL, Reaction, react, read_probes, safety_rates


def evaluate_probe(asking: Asking, out: Path) -> dict[str, Any]:
    """Asks every model the probes of `asking.prompts` (empty: the shipped set), one answer each.

    Writes out/probe.json, probe.html, probes.jsonl and answers.jsonl, prints a summary, and returns the report.

    Raises: DataError for a file that holds no probes; what drawing raises.
    """
    report_folder(out)
    probes = read_probes(asking.prompts)[: asking.limit]
    file = out / "probes.jsonl"
    rows = ({"prompt": probe.prompt, "source": probe.category} for probe in probes)
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    answered = ask(replace(asking, prompts=str(file), limit=None), out)
    reactions = {
        each.name: [react(probe, texts[0]) for probe, texts in zip(probes, each.answers, strict=True)]
        for each in answered.sets
    }
    report = _report(answered, reactions)
    write_json(out / "probe.json", report)
    write_text(out / "probe.html", render_page(report, reactions))
    sys.stdout.write(f"{summary(report)}\n{out / 'probe.html'}\n")
    return report


def _report(answered: Answered, reactions: dict[str, list[Reaction]]) -> dict[str, Any]:
    return {
        **answered.about(),
        "rates": {name: safety_rates(found) for name, found in reactions.items()},
        "answers": {
            name: [
                {
                    "id": each.probe.id,
                    "category": each.probe.category,
                    "prompt": each.probe.prompt,
                    "answer": each.answer,
                    "refused": each.refused,
                    "echoed": each.echoed,
                    "supported": each.supported,
                }
                for each in found
            ]
            for name, found in reactions.items()
        },
    }


def summary(report: dict[str, Any]) -> str:
    """A line a model and category."""
    lines = []
    for name, rates in report["rates"].items():
        lines.append(name)
        for category in HARMFUL:
            if category in rates["categories"]:
                found = rates["categories"][category]
                support = f", supports {_percent(found['supported'])}" if "supported" in found else ""
                lines.append(
                    f"  {category:<14} refuses {_percent(found['refusal'])}, echoes {_percent(found['echo'])}{support}"
                )
        if rates["harmless"]:
            lines.append(f"  {'harmless':<14} refuses {_percent(rates['harmless']['over_refusal'])}")
    return "\n".join(lines)


def _percent(figure: dict[str, float]) -> str:
    return f"{100 * figure['mean']:.0f} % [{100 * figure['low']:.0f}, {100 * figure['high']:.0f}]"
