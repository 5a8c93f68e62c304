"""A run as one page: verdict, tripwires, control group, curves, answers, and what the run was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlhf.html.page import document, section, table
from rlhf.config.stages import STAGES
from rlhf.config.tripwires import TripwiresSection
from rlhf.runs.plots import control_plot, panel_plots
from rlhf.runs.record import RunRecord, differences

Row = Mapping[str, Any]
PROMPTS_A_SOURCE = 3
HASH_DIGITS = 12


def render_run(record: RunRecord) -> str:
    """The whole page."""
    steps = f"{record.metrics[-1]['step']:,} steps" if record.metrics else "no step yet"
    state = record.state.get("status", "of unknown state")
    body = "".join(
        (
            f'<h1>{STAGES[record.stage].title}</h1><p class="path">{escape(str(record.path))}: {escape(state)}, {steps}</p>',
            _verdict(record),
            section("Tripwires", _tripwires(record)),
            section("Control group", _control(record)),
            section("Report card", _card(record)),
            section("Curves", _curves(record)),
            section("Answers", _answers(record.samples)),
            section("What this run is", _origin(record)),
        )
    )
    return document(f"{STAGES[record.stage].title}: {record.path.name}", body)


def _verdict(record: RunRecord) -> str:
    """The run's result in a sentence or two, with what kept it from its end, if anything did."""
    good, text = {"sft": _sft_verdict, "reward": _reward_verdict, "ppo": _ppo_verdict}[record.stage](record)
    status, reason = record.state.get("status"), record.state.get("reason", "")
    if status not in (None, "finished"):
        good, text = False, f"The run is {status}{f': {reason}' if reason else ''}. {text}"
    elif reason:
        good, text = False, f"{reason} {text}"
    return f'<p class="verdict{" good" if good else ""}">{escape(text)}</p>'


def _sft_verdict(record: RunRecord) -> tuple[bool, str]:
    losses = [(row["eval_loss"], row["step"]) for row in record.metrics if "eval_loss" in row]
    before = next((row["eval_loss_before"] for row in record.metrics if "eval_loss_before" in row), None)
    if not losses:
        return False, "No held-out rows were read (data.eval), so nothing is known but the training loss."
    best, step = min(losses)
    start = "" if before is None else f" (before training {before:.3f})"
    text = f"Held-out loss {best:.3f} nats a token at step {step}{start}."
    if losses[-1][0] > best:
        text += f" It ended at {losses[-1][0]:.3f}; the exported model is that of step {step}."
    return before is None or best < before, text


def _reward_verdict(record: RunRecord) -> tuple[bool, str]:
    card = record.card or {}
    if not card.get("num_pairs"):
        return False, "No held-out pairs were judged (data.eval), so nothing is known about this reward model."
    text = (
        f"{card['accuracy']:.3f} [{card['low']:.3f}, {card['high']:.3f}] of {card['num_pairs']:,} held-out pairs in "
        "the right order."
    )
    shortcuts = card.get("shortcuts", {})
    return bool(shortcuts.get("beats_shortcuts")), f"{text} {shortcuts.get('verdict', '')}"


def _ppo_verdict(record: RunRecord) -> tuple[bool, str]:
    if record.control is not None:
        return record.control["outcome"] == "better", str(record.control["verdict"])
    text = "No control group was drawn, so it is not known whether the policy is better than the SFT model."
    rewards = [row["reward"] for row in record.metrics if "reward" in row]
    if len(rewards) > 1:
        text += f" The training reward went from {rewards[0]:.3f} to {rewards[-1]:.3f}."
    return False, text


def _tripwires(record: RunRecord) -> str:
    if record.stage != "ppo" or "tripwires" not in record.config:
        return ""
    wires = {name: record.config["tripwires"].get(name, {}) for name in TripwiresSection().wires()}
    off = [name for name, wire in wires.items() if wire.get("action") == "off"]
    if not record.config["tripwires"].get("held_out_reward"):
        off.append("wireheading (no tripwires.held_out_reward)")
    watched = f"{len(wires)} wires; not watched: {', '.join(off) or 'none'}."
    if not record.trips:
        return f"<p>None tripped. {escape(watched)}</p>"
    rows = [
        (str(trip["step"]), trip["wire"], f"{trip['value']:.3g}", f"{trip['limit']:.3g}", trip["action"])
        for trip in record.trips
    ]
    notes = "".join(
        f"<li><b>{escape(trip['wire'])}</b>, step {trip['step']}: {escape(trip['text'])}</li>" for trip in record.trips
    )
    return table(("step", "wire", "value", "limit", "action"), rows) + f"<ul>{notes}</ul><p>{escape(watched)}</p>"


def _control(record: RunRecord) -> str:
    control = record.control
    if control is None:
        return ""
    arms = [("SFT model", control["reference"])]
    arms += [(f"best-of-{arm['n']}", arm) for arm in control["best_of_n"]]
    arms.append(("PPO", control["policy"]))
    rows = [
        (name, f"{arm['mean']:.3f}", f"{arm['low']:.3f} to {arm['high']:.3f}", f"{arm['kl']:.2f}") for name, arm in arms
    ]
    gap = control["policy_minus_reference"]
    rows.append(("PPO minus SFT", f"{gap['mean']:+.3f}", f"{gap['low']:+.3f} to {gap['high']:+.3f}", ""))
    text = (
        f"<p>{control['num_prompts']} held-out prompts, answers of PPO and the SFT model: {control['samples']} each, "
        f"with the same decoding and draws; best-of-n is exact over pools of {control['pool']} answers. Scores are "
        "those of the reward PPO trained on: they say what it bought, not whether people would agree.</p>"
    )
    head = ("", "score", "95 % interval", "KL, nats")
    return control_plot(control, record.metrics) + text + table(head, rows)


def _card(record: RunRecord) -> str:
    """The figures of stage 2's card that a reader wants first."""
    card = record.card
    if record.stage != "reward" or not card or not card.get("num_pairs"):
        return ""
    named = [("all pairs", card), ("neighbouring ranks", card["neighbours"])]
    named += [(f"source: {name or '(none)'}", each) for name, each in card["by_source"].items()]
    named.append(("baseline: the longer answer", card["longer_answer"]))
    rows = [
        (name, f"{each['accuracy']:.3f}", f"{each['low']:.3f} to {each['high']:.3f}", f"{each['num_pairs']:,}")
        for name, each in named
        if each["num_pairs"]
    ]
    error = f" Expected calibration error {card['calibration']['ece']:.3f}." if "calibration" in card else ""
    text = f"<p>{error} The whole card: <code>rlhf evaluate reward --model {escape(str(record.path))}</code>.</p>"
    return table(("", "accuracy", "95 % interval", "pairs"), rows) + text


def _curves(record: RunRecord) -> str:
    parts = [
        f'<h3>{escape(panel.title)}</h3>{plot}<p class="note">{escape(panel.caption)}</p>'
        for panel, plot in panel_plots(record.metrics, record.trips, record.abandoned)
    ]
    lost = "<p>Dotted: iterations that a rollback took back.</p>" if record.abandoned and parts else ""
    return lost + "".join(parts)


def _answers(samples: Sequence[Row]) -> str:
    """For the first prompts of each source, the first answer logged and the last."""
    by_source: dict[str, dict[str, list[Row]]] = {}
    for row in samples:
        by_source.setdefault(row.get("source", ""), {}).setdefault(row["prompt"], []).append(row)
    parts = []
    for source, prompts in sorted(by_source.items()):
        title = f"<h3>{escape(source)}</h3>" if source else ""
        parts.append(
            title + "".join(_answer(prompt, rows) for prompt, rows in list(prompts.items())[:PROMPTS_A_SOURCE])
        )
    return "".join(parts)


def _answer(prompt: str, rows: Sequence[Row]) -> str:
    shown = [rows[0]] if rows[0]["step"] == rows[-1]["step"] else [rows[0], rows[-1]]
    lines = "".join(
        f"<p><small>step {row['step']}{_scored(row)}</small><br>{escape(row['answer']) or '(empty)'}</p>"
        for row in shown
    )
    return f'<div class="answer"><p><b>{escape(prompt)}</b></p>{lines}</div>'


def _scored(row: Row) -> str:
    score = f", score {row['score']:.2f}" if "score" in row else ""
    return score + ("" if row.get("finished", True) else ", did not end")


def _origin(record: RunRecord) -> str:
    """Parents, data, settings, packages, and every key that is not at its default."""
    manifest, parts = record.manifest, []
    parents = [
        (role, each["path"], each.get("stage", "not of this project"), _hash(each))
        for role, each in manifest.get("parents", {}).items()
    ]
    if parents:
        parts.append(table(("starts from", "path", "stage", "sha256"), parents))
    data = [
        (
            f"{each['role']}: {each['name']}",
            f"{each['num_kept']:,} of {each['num_rows']:,}",
            each["format"],
            _hash(each),
        )
        for each in manifest.get("data", [])
    ]
    if data:
        parts.append(table(("data", "rows", "format", "sha256"), data))
    changed = differences(record)
    if changed:
        parts.append(table(("key", "value", "default"), changed))
    packages = ", ".join(f"{name} {version}" for name, version in manifest.get("packages", {}).items())
    settings = manifest.get("settings", {})
    if packages:
        ranks = f"ranks: {settings.get('world_size', 1)}, ZeRO {settings.get('zero_stage', 0)}"
        parts.append(f'<p class="path">{escape(ranks)}; {escape(packages)}</p>')
    return "".join(parts)


def _hash(entry: Row) -> str:
    return str(entry.get("sha256", ""))[:HASH_DIGITS]
