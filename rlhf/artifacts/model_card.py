"""README.md of a published model: what it is, from what it was made, how it was measured, how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlhf.artifacts.export import base_entry
from rlhf.artifacts.files import read_json
from rlhf.artifacts.finished import FinishedRun
from rlhf.artifacts.reload import Outcome
from rlhf.artifacts.run_folder import RunFolder
from rlhf.config.stages import STAGES

STAGE_TEXT = {
    "sft": "A causal language model after supervised fine-tuning (stage 1).",
    "reward": "A reward model (stage 2): one number for a conversation, higher is better.",
    "ppo": "A causal language model after PPO against a reward model (stage 3).",
}
UNKNOWN_LICENCE = "unknown: check the base's licence"
OF_THIS_MACHINE = ("run.dir", "data.train", "data.eval", "data.demonstrations")  # sources stand in the data table
ROLES_ABOVE = {"sft": "base", "reward": "base", "ppo": "actor"}
NUM_HASH = 12
INNER_FIGURES = (  # of a report card's groups; the accuracy of every group is shown too
    "shortcuts.verdict",
    "calibration.ece",
    "kendall.tau_b",
    "length_correlation.spearman",
    "leakage.num_prompts_seen",
)
FOUR_BIT = 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)'


@dataclass(frozen=True, slots=True)
class Card:
    """What the export adds to what the run knows. `name` is the folder's."""

    name: str
    part: str
    dtype: str
    outcome: Outcome
    note: str


def model_card(finished: FinishedRun, card: Card) -> str:
    """The whole file, front matter first."""
    base = root_base(finished.manifest)
    licence = base_licence(base)
    sections = [
        _front_matter(finished, licence),
        f"# {card.name}\n\n{STAGE_TEXT[finished.stage]}",
        _origin(finished, base, licence),
        "## Data\n\n" + _data_table(finished.manifest["data"]),
        "## Recipe\n\nKeys that differ from the defaults:\n\n" + _recipe(finished),
        "## Evaluation\n\n" + _evaluation(finished),
        "## Loading\n\n" + _loading(finished, card),
        "## Export\n\n" + _export(card),
        "## Packages\n\n" + ", ".join(f"{name} {version}" for name, version in finished.manifest["packages"].items()),
    ]
    return "\n\n".join(sections) + "\n"


def root_base(manifest: dict[str, Any]) -> str:
    """Path or hub id of the model that the first stage started from; empty when the manifest names none."""
    entry: dict[str, Any] = manifest
    while "parents" in entry:
        role = ROLES_ABOVE.get(str(entry.get("stage")), "base")
        if role not in entry["parents"]:
            break
        entry = entry["parents"][role]
    return str(entry.get("path", ""))


def base_licence(base: str) -> str:
    """`license` of the front matter of the base's README.md, or a line that says it is not known."""
    file = Path(base) / "README.md"
    if not base or not file.is_file():
        return UNKNOWN_LICENCE
    parts = file.read_text(encoding="utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return UNKNOWN_LICENCE
    try:
        matter = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return UNKNOWN_LICENCE
    found = matter.get("license") if isinstance(matter, dict) else None
    return found if isinstance(found, str) and found else UNKNOWN_LICENCE


def changed_keys(config: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every value that is not the default."""
    for name, value in config.items():
        key, default = f"{prefix}{name}", defaults.get(name)
        if isinstance(value, dict) and isinstance(default, dict):
            yield from changed_keys(value, default, f"{key}.")
        elif name not in defaults or value != default:
            yield key, value


def _front_matter(finished: FinishedRun, licence: str) -> str:
    matter: dict[str, Any] = {"language": ["ko"], "library_name": "transformers"}
    if licence != UNKNOWN_LICENCE:
        matter["license"] = licence
    matter["pipeline_tag"] = "text-classification" if finished.scalar else "text-generation"
    return f"---\n{yaml.safe_dump(matter, sort_keys=False)}---"


def _origin(finished: FinishedRun, base: str, licence: str) -> str:
    rows = [f"- Stage: {finished.stage}", f"- Base: `{base}`", f"- Licence of the base: {licence}"]
    for role, entry in finished.manifest["parents"].items():
        stage = f"stage {entry['stage']}, " if "stage" in entry else ""
        rows.append(f"- Started from, as {role}: `{entry['path']}` ({stage}sha256 {_short(entry.get('sha256'))})")
    return "\n".join(rows)


def _data_table(reports: list[dict[str, Any]]) -> str:
    lines = ["| use | source | rows used | rows in file | sha256 |", "|---|---|---|---|---|"]
    for report in reports:
        name = report.get("name") or Path(str(report["path"])).name
        counts = f"{report['num_kept']:,} | {report['num_rows']:,}"
        lines.append(f"| {report['role']} | {name} | {counts} | `{_short(report['sha256'])}` |")
    return "\n".join(lines)


def _recipe(finished: FinishedRun) -> str:
    file = finished.path / "config.yaml"
    if not file.is_file():
        return "The run folder has no config.yaml."
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    changed = changed_keys(config, STAGES[finished.stage].config().model_dump())
    rows = [
        f"- `{key}`: `{json.dumps(value, ensure_ascii=False)}`" for key, value in changed if key not in OF_THIS_MACHINE
    ]
    return "\n".join(rows) or "none"


def _evaluation(finished: FinishedRun) -> str:
    figures = dict(_last_evaluation(finished))
    report = finished.model / "report_card.json"
    if report.is_file():
        figures |= dict(_figures(read_json(report)))
    if not figures:
        return "The run measured nothing on held-out data."
    lines = ["| figure | value |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {_shown(value)} |" for name, value in figures.items())])


def _last_evaluation(finished: FinishedRun) -> Iterator[tuple[str, Any]]:
    """The newest value of each `eval_` metric."""
    file = RunFolder(finished.path).metrics
    newest: dict[str, Any] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        newest |= {name: value for name, value in json.loads(line).items() if name.startswith("eval_")}
    yield from newest.items()


def _figures(report: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Plain values of a report card, the accuracy of each group in it, and INNER_FIGURES."""
    for name, value in report.items():
        if isinstance(value, str | int | float):
            yield name, value
        elif isinstance(value, dict) and isinstance(value.get("accuracy"), int | float):
            yield f"{name}: accuracy", value["accuracy"]
    for dotted in INNER_FIGURES:
        group, name = dotted.split(".")
        if name in report.get(group, {}):
            yield f"{group}: {name}", report[group][name]


def _loading(finished: FinishedRun, card: Card) -> str:
    lines = _adapter_lines(finished, card) if card.part == "adapter" else _merged_lines(finished, card)
    block = "\n".join(["```python", *lines, "```"])
    return f"`{card.name}` stands for this folder's path.\n\n{block}"


def _merged_lines(finished: FinishedRun, card: Card) -> list[str]:
    auto = "AutoModelForSequenceClassification" if finished.scalar else "AutoModelForCausalLM"
    shift = float(finished.config.get("score_shift", 0.0))
    lines = [
        f"from transformers import AutoTokenizer, {auto}",
        f'tokenizer = AutoTokenizer.from_pretrained("{card.name}")',
        f'model = {auto}.from_pretrained("{card.name}", dtype="auto")',
    ]
    if finished.scalar:
        shifted = " + model.config.score_shift" if shift else ""
        return [*lines, _text("반가워요!"), f"score = model(**inputs).logits[0, 0]{shifted}"]
    return [*lines, _text(None), "print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))"]


def _adapter_lines(finished: FinishedRun, card: Card) -> list[str]:
    auto = "AutoModelForSequenceClassification" if finished.scalar else "AutoModelForCausalLM"
    assert finished.adapter is not None, "an adapter's card is of a run with an adapter"
    entry = base_entry(finished.adapter)
    options = ", num_labels=1" if finished.scalar else ""
    lines = [
        "from peft import PeftModel",
        f"from transformers import {auto}",
        f'base = {auto}.from_pretrained("{entry["path"]}"{options})',
        f"base.resize_token_embeddings({entry['num_tokens']}, mean_resizing=False)",
        f'model = PeftModel.from_pretrained(base, "{card.name}")',
    ]
    if entry["quantize"] != "none":
        lines.append(f"# training held the base in 4 bits: load it with quantization_config={FOUR_BIT}")
    if entry["score_offset"]:
        lines.append(f"# score = model(...).logits[0, 0] + {entry['score_offset']!r}")
    return lines


def _text(answer: str | None) -> str:
    """The line that renders one exchange; an open answer is to be generated."""
    turns: list[dict[str, str]] = [{"role": "user", "content": "안녕하세요?"}]
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    opening = ", add_generation_prompt=True" if answer is None else ""
    messages = json.dumps(turns, ensure_ascii=False)
    return f'inputs = tokenizer.apply_chat_template({messages}{opening}, return_dict=True, return_tensors="pt")'


def _export(card: Card) -> str:
    outcome = card.outcome
    lines = [
        f"Loaded again in a fresh process ({card.part}, {card.dtype}), it differs from the trained model in float32 by "
        f"at most {outcome.difference:.3g} over {outcome.num_outputs} outputs, the largest of which is "
        f"{outcome.largest:.4g}."
    ]
    if outcome.agreement is not None:
        lines.append(f"The most likely token is the same in {outcome.agreement:.2%} of the contexts.")
    if card.note:
        lines.append(f"Note: {card.note}.")
    return "\n".join(lines)


def _short(digest: Any) -> str:
    return str(digest)[:NUM_HASH] if digest else "unknown"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
