"""What the runs of a project come to, in sentences of both languages: verdict, what weakens it, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from rlhf.artifacts.files import short_hash
from rlhf.config.stages import CHAIN, STAGES
from rlhf.evaluate.control_group import verdict
from rlhf.html.texts import Texts
from rlhf.html.words import Words, joined, same
from rlhf.runs.project import (
    ComparisonFolder,
    Project,
    replaced_parents,
    sources_of,
    trained_and_held_out,
)
from rlhf.runs.record import RunRecord

Row = Mapping[str, Any]
Tone = Literal["good", "bad", "open"]
NOTHING = same("")
EVEN_ODDS = 0.5
text = Texts("rlhf.runs")


class Statement(NamedTuple):
    """good: better, beyond its interval; bad: worse, or it went wrong; open: not known."""

    tone: Tone
    words: Words


def stage_finding(run: RunRecord) -> Statement:
    """A run's result in a sentence, after the reason why it ended early, if it did."""
    found = {"sft": _sft, "reward": _reward, "ppo": _ppo, "dpo": _dpo}[run.stage](run)
    reason = run.reason if not run.reason or run.reason.endswith((".", "!", "?")) else f"{run.reason}."
    if run.status != "finished":
        ended = text("ended", status=text.named("status", run.status), reason=f": {reason}" if reason else ".")
        return Statement("bad", joined([ended, found.words]))
    if reason:
        return Statement("open" if found.tone == "good" else found.tone, joined([same(reason), found.words]))
    return found


def _sft(run: RunRecord) -> Statement:
    losses = [(row["eval/loss"], row["step"]) for row in run.metrics if "eval/loss" in row]
    before = next((row["eval/loss_before"] for row in run.metrics if "eval/loss_before" in row), None)
    if not losses:
        return Statement("open", text("sft.unmeasured"))
    best, step = min(losses)
    start = NOTHING if before is None else text("sft.before", before=before)
    words = [text("sft.measured", best=best, step=step, before=start)]
    if losses[-1][0] > best:
        words.append(text("sft.rose", last=losses[-1][0], step=step))
    return Statement("open" if before is None else "good" if best < before else "bad", joined(words))


def _reward(run: RunRecord) -> Statement:
    card = run.card
    if card is None:
        return Statement("open", text("reward.unmeasured"))
    interval = {name: card[name] for name in ("accuracy", "low", "high")}
    words = joined([text("reward.measured", pairs=card["num_pairs"], **interval), _shortcut_words(card)])
    return Statement("good" if _beats_shortcuts(card) else "open", words)


def _beats_shortcuts(card: Row) -> bool:
    return bool(card.get("shortcuts", {}).get("beats_shortcuts"))


def _shortcut_words(card: Row) -> Words:
    """Whether a reward model does better than rules that read no answer."""
    found = card.get("shortcuts", {})
    if not found:
        return text("reward.shortcuts.unmeasured")
    gap, against = found.get("model_minus_best"), NOTHING
    if gap:
        baseline = found.get("best_baseline")
        name = text(f"reward.shortcuts.{baseline if baseline in ('longer_answer', 'character_ngrams') else 'other'}")
        against = text("reward.shortcuts.against", name=name, **gap)
    outcome = "better" if _beats_shortcuts(card) else "worse" if gap and gap["high"] < 0 else "unknown"
    return text(f"reward.shortcuts.{outcome}", against=against, verdict=str(found.get("verdict", "")))


def _ppo(run: RunRecord) -> Statement:
    if run.control is not None:
        words = text("ppo.control", verdict=verdict(run.control))
        return Statement(_tone(run.control["outcome"]), words)
    parts = [text("ppo.unmeasured")]
    rewards = [row["objective/reward"] for row in run.metrics if "objective/reward" in row]
    if len(rewards) > 1:
        parts.append(text("ppo.rewards", first=rewards[0], last=rewards[-1]))
    return Statement("open", joined(parts))


def _dpo(run: RunRecord) -> Statement:
    """Held-out accuracy says that the order was learnt, not that the answers are better: never `good`."""
    rows = [row for row in run.metrics if "eval/accuracy" in row]
    if not rows:
        return Statement("open", text("dpo.unmeasured"))
    best = min(rows, key=lambda row: row["eval/preference_loss"])
    words = [text("dpo.measured", accuracy=best["eval/accuracy"], step=best["step"])]
    if "eval/kl" in best:
        words.append(text("dpo.kl", kl=best["eval/kl"]))
    return Statement("open" if best["eval/accuracy"] > EVEN_ODDS else "bad", joined(words))


def _tone(outcome: str) -> Tone:
    return "good" if outcome == "better" else "bad" if outcome == "worse" else "open"


def headline(project: Project) -> Statement:
    """Is the policy better? By comparisons where there are some, and by control groups; one line per finding. `good`
    only without a weak point."""
    findings = [comparison_finding(each) for each in project.comparisons]
    findings += [_with_name(run, project) for run in project.of_stage("ppo")]
    if not findings:
        results = [_with_name(run, project).words for run in project.of_stage(project.runs[-1].stage)]
        return Statement("open", joined([text("nothing_yet"), *results]))
    tones = {each.tone for each in findings}
    clear = tones == {"good"} and not weak_points(project)
    words = joined([each.words for each in findings], "\n")
    return Statement("bad" if tones == {"bad"} else "good" if clear else "open", words)


def _with_name(run: RunRecord, project: Project) -> Statement:
    """The run's finding, its name first where there are several runs of its stage."""
    finding = stage_finding(run)
    if len(project.of_stage(run.stage)) == 1:
        return finding
    return Statement(finding.tone, joined([same(f"{run.name}:"), finding.words]))


def comparison_finding(comparison: ComparisonFolder) -> Statement:
    report = comparison.report
    return Statement(_tone(report["outcome"]), Words(str(report["sentence"]["ko"]), str(report["sentence"]["en"])))


def weak_points(project: Project) -> list[Words]:
    """Reasons why the verdict should be taken with care."""
    return [*_weak_reward_models(project), *_weak_comparisons(project), *_weak_policies(project), *_weak_data(project)]


def _weak_reward_models(project: Project) -> Iterator[Words]:
    for run in project.of_stage("reward"):
        if run.card is not None and not _beats_shortcuts(run.card):
            yield text("weak.reward_model", name=run.name, shortcuts=_shortcut_words(run.card))


def _weak_comparisons(project: Project) -> Iterator[Words]:
    """The notes of the view that heads each comparison."""
    for comparison in project.comparisons:
        views = comparison.report["views"]
        for note in comparison.report.get("notes", []):
            words = note_words(str(note), views[0].get("kind", "") if views else "")
            yield text("weak.comparison", name=comparison.path.name, note=words)


def note_words(note: str, kind: str) -> Words:
    """A note of a view; the one note of a reward model says that a model was trained against it."""
    return text("own_reward_note", note=note) if kind == "reward" else same(note)


def _weak_policies(project: Project) -> Iterator[Words]:
    for run in project.of_stage("ppo"):
        if run.control is not None and not project.comparisons:
            yield text("weak.own_reward", name=run.name)
        if run.control is not None:
            yield from _cheaper_sampling(run.name, run.control)
        if run.trips:
            wires = ", ".join(dict.fromkeys(str(trip["wire"]) for trip in run.trips))
            yield text("weak.tripped", name=run.name, wires=wires)


def _cheaper_sampling(name: str, control: Row) -> Iterator[Words]:
    """The first best-of-n that scores at least as much as the policy at no more KL, if one does."""
    policy = control["policy"]
    for arm in control["best_of_n"]:
        if arm["mean"] >= policy["mean"] and arm["kl"] <= policy["kl"]:
            arm_figures = {"n": arm["n"], "arm_mean": arm["mean"], "arm_kl": arm["kl"]}
            yield text("weak.best_of", name=name, mean=policy["mean"], kl=policy["kl"], **arm_figures)
            return


def _weak_data(project: Project) -> Iterator[Words]:
    for uses in sources_of(project.runs):
        if trained_and_held_out(uses):
            yield text("weak.shared_data", name=str(uses[0].report.get("name", "")))
    for path, hashes in replaced_parents(project.runs).items():
        yield text("weak.replaced_parent", path=path, hashes=", ".join(map(short_hash, hashes)))


class Missing(NamedTuple):
    """What a project lacks, and the command or keys that would make it."""

    words: Words
    command: str = ""


def missing(project: Project) -> list[Missing]:
    """Pieces of a whole project that are not in the folders."""
    found = [
        Missing(
            text("missing.stage", stage=text.named("stage", stage)), f"deepspeed scripts/{STAGES[stage].script} ..."
        )
        for stage in CHAIN
        if not project.of_stage(stage) and (stage == "sft" or not project.of_stage("dpo"))
    ]
    for run in project.runs:
        found += missing_in(run)
    if not project.comparisons:
        command = "rlhf evaluate compare SFT PPO --prompts FILE --out DIR --judge URL=MODEL"
        found.append(Missing(text("missing.comparison"), command))
    return found


def missing_in(run: RunRecord) -> list[Missing]:
    """What a run of its stage could have left and did not."""
    held_out = any("eval/loss" in row or "eval/preference_loss" in row for row in run.metrics)
    watched = (run.config.get("tripwires") or {}).get("held_out_reward")
    checks = (
        ("manifest", not run.manifest, ""),
        ("eval_loss", run.stage in ("sft", "dpo") and not held_out, "data.eval=FILE"),
        ("card", run.stage == "reward" and run.card is None, "data.eval=FILE"),
        ("control", run.stage == "ppo" and run.control is None, "control.enabled=true, data.eval=FILE"),
        ("held_out_reward", run.stage == "ppo" and not watched, "tripwires.held_out_reward=RUN"),
        ("samples", run.stage != "reward" and not run.samples, "log.num_samples=3"),
    )
    return [Missing(text(f"missing.{name}", name=run.name), command) for name, lacks, command in checks if lacks]
