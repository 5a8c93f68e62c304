"""Sections of a project's page: the reward model's card, what PPO did, curves, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlhf.config.tripwires import TripwiresSection
from rlhf.evaluate.figures import Cell, figure_cell, interval_cell
from rlhf.evaluate.reward.card_page import PROBES
from rlhf.evaluate.reward.card_plots import accuracy_plot, probe_plot, reliability_plot
from rlhf.runs import bilingual as say
from rlhf.runs.bilingual import Words, both, folded, heading, paragraph, table
from rlhf.runs.plots import Panel, control_plot, panel_plots
from rlhf.runs.project import ComparisonFolder, Project
from rlhf.runs.record import RunRecord
from rlhf.runs.verdict import OWN_REWARD, comparison_finding

Row = Mapping[str, Any]
FIRST_PANELS = {
    "sft": ("Loss",),
    "reward": ("Accuracy", "Loss"),
    "ppo": (
        "Reward",
        "Held-out reward model",
        "KL to the reference",
        "Length of answers",
        "Answers that end",
        "Entropy",
    ),
}
INTERVAL = Words("95 % 구간", "95 % interval")
JUDGED_BY = {
    "judge": Words("심판 모델", "judge"),
    "reward": Words("보상 모델", "reward model"),
    "people": Words("사람", "people"),
}


def curves_body(run: RunRecord, *, brief: bool) -> str:
    """The curves a reader of this stage wants first, then the others, folded; `brief` leaves those out."""
    wanted = FIRST_PANELS[run.stage]
    drawn = panel_plots(run.metrics, run.trips, run.abandoned)
    first = [each for title in wanted for each in drawn if each[0].title == title]
    others = [] if brief else [each for each in drawn if each[0].title not in wanted]
    if not first and not others:
        return paragraph(
            Words("기록된 곡선이 없습니다(metrics.jsonl).", "No curve was logged (metrics.jsonl)."), "absent"
        )
    lost = Words("점선: 되돌린 반복입니다.", "Dotted: iterations that a rollback took back.")
    body = heading(3, Words("곡선", "Curves")) + (paragraph(lost) if run.abandoned else "") + _panels(first)
    if brief:
        more = Words("나머지 곡선은 실행별 보고서에 있습니다:", "The other curves are on the run's own page:")
        return f"{body}<p>{both(more)} <code>rlhf report {escape(str(run.path))}</code></p>"
    return body + (
        folded(Words(f"곡선 {len(others)}개 더", f"{len(others)} more curves"), _panels(others)) if others else ""
    )


def _panels(drawn: Sequence[tuple[Panel, str]]) -> str:
    parts = []
    for panel, plot in drawn:
        korean = say.PANELS.get(panel.title, Words(panel.title, panel.caption))
        title, caption = Words(korean.ko, panel.title), Words(korean.en, panel.caption)
        parts.append(f"<div><h4>{both(title)}</h4>{plot}{paragraph(caption, 'note')}</div>")
    return f'<div class="curves">{"".join(parts)}</div>'


def card_body(run: RunRecord) -> str:
    """The report card of a reward model: accuracy, shortcuts, calibration, probes, leakage."""
    card = run.card
    if not card or not card.get("num_pairs"):
        return paragraph(
            Words(
                "성적표(report_card.json)가 없거나 평가 쌍이 없습니다.", "No report card, or no held-out pair in it."
            ),
            "absent",
        )
    groups = _groups(card)
    rows = [(title, f"{each['accuracy']:.3f}", _interval(each), f"{each['num_pairs']:,}") for title, _, each in groups]
    head = ("", Words("정확도", "accuracy"), INTERVAL, Words("쌍", "pairs"))
    plot = accuracy_plot([(name, each) for _, name, each in groups])
    title = heading(3, Words("성적표: 정확도와 지름길", "Report card: accuracy and shortcuts"))
    return title + str(plot) + table(head, rows) + _calibration(card) + _probes(card) + _leakage(card)


def _groups(card: Row) -> list[tuple[Words, str, Row]]:
    """(title, label in the plot, figures) of every accuracy of the card that has pairs."""
    longer, ngrams = (
        Words("지름길: 더 긴 답변", "shortcut: the longer answer"),
        Words("지름길: 글자 n-그램", "shortcut: n-grams"),
    )
    rows: list[tuple[Words, str, Row]] = [(Words("모든 쌍", "all pairs"), "all pairs", card)]
    if "neighbours" in card:
        rows.append((Words("이웃한 순위", "neighbouring ranks"), "neighbouring ranks", card["neighbours"]))
    for name, each in card.get("by_source", {}).items():
        rows.append(
            (Words(f"출처: {name or '(없음)'}", f"source: {name or '(none)'}"), f"source: {name or '(none)'}", each)
        )
    baselines = card.get("shortcuts", {}).get("baselines", {})
    if "longer_answer" in baselines or "longer_answer" in card:
        rows.append((longer, "baseline: longer answer", baselines.get("longer_answer") or card["longer_answer"]))
    if "character_ngrams" in baselines:
        rows.append((ngrams, "baseline: character n-grams", baselines["character_ngrams"]))
    return [row for row in rows if row[2].get("num_pairs")]


def _calibration(card: Row) -> str:
    title = heading(3, Words("보정", "Calibration"))
    found = card.get("calibration")
    if not found:
        return title + paragraph(Words("성적표에 보정 결과가 없습니다.", "The card has no calibration."), "absent")
    text = Words(
        f"기대 보정 오차(ECE)는 {found['ece']:.3f}입니다. 점이 점선에 가까울수록 모델의 확신을 믿을 수 있습니다.",
        f"Expected calibration error {found['ece']:.3f}. The nearer the dots to the dashed line, the more its "
        "confidence can be believed.",
    )
    return title + str(reliability_plot(found["reliability"])) + paragraph(text)


def _probes(card: Row) -> str:
    named = [(title, card["probes"][name]) for name, title in PROBES.items() if name in card.get("probes", {})]
    if not named:
        return ""
    text = Words(
        "프롬프트를 조금 바꿔도 정확도는 거의 그대로여야 하고, 좋은 답변을 망가뜨리면 점수가 떨어져야 합니다.",
        "A change of the prompt should move little; the better answer, once damaged, should lose.",
    )
    return folded(Words("흔들어 보기", "Probes"), str(probe_plot(named)) + paragraph(text))


def _leakage(card: Row) -> str:
    found = card.get("leakage")
    if not found:
        return ""
    text = Words(
        f"평가 프롬프트 {found['num_prompts']:,}개 중 {found['num_prompts_seen']:,}개, "
        f"답변 {found['num_answers']:,}개 중 {found['num_answers_seen']:,}개가 학습 데이터에 있습니다.",
        f"{found['num_prompts_seen']:,} of {found['num_prompts']:,} test prompts and {found['num_answers_seen']:,} of "
        f"{found['num_answers']:,} answers occur in training data.",
    )
    unread = found.get("not_checked", [])
    more = Words(f"확인하지 못한 데이터가 {len(unread)}건 있습니다.", f"Not checked: {len(unread)}.")
    return paragraph(text) + (paragraph(more, "note") if unread else "")


def policy_body(run: RunRecord) -> str:
    """The control group and the tripwires of stage 3."""
    return _control(run) + heading(3, Words("경보", "Tripwires")) + _tripwires(run)


def _control(run: RunRecord) -> str:
    title, control = heading(3, Words("대조군", "Control group")), run.control
    if control is None:
        return title + paragraph(
            Words("대조군(control.json)이 없습니다.", "There is no control group (control.json)."), "absent"
        )
    arms: list[tuple[Words, Row]] = [(Words("SFT 모델", "SFT model"), control["reference"])]
    arms += [(Words(f"best-of-{arm['n']}", f"best-of-{arm['n']}"), arm) for arm in control["best_of_n"]]
    arms.append((Words("PPO", "PPO"), control["policy"]))
    rows: list[Sequence[Words | str]] = [
        (name, f"{arm['mean']:.3f}", _interval(arm), f"{arm['kl']:.2f}") for name, arm in arms
    ]
    gap = control["policy_minus_reference"]
    rows.append((Words("PPO - SFT", "PPO - SFT"), f"{gap['mean']:+.3f}", f"{gap['low']:+.3f} – {gap['high']:+.3f}", ""))
    text = Words(
        f"평가 프롬프트 {control['num_prompts']:,}개에 같은 설정으로 답하게 하고, "
        "PPO가 학습에 쓴 보상으로 채점했습니다.",
        f"{control['num_prompts']:,} held-out prompts, the same decoding, scored by the reward PPO trained on.",
    )
    head = ("", Words("점수", "score"), INTERVAL, "KL, nats")
    return title + str(control_plot(control, run.metrics)) + paragraph(text) + table(head, rows)


def _tripwires(run: RunRecord) -> str:
    section = run.config.get("tripwires")
    if section is None:
        return paragraph(Words("경보 설정이 기록되지 않았습니다.", "No tripwires are recorded."), "absent")
    wires = list(TripwiresSection().wires())
    off = [name for name in wires if section.get(name, {}).get("action") == "off"]
    if not section.get("held_out_reward") and "wireheading" not in off:
        off.append("wireheading")
    listed = ", ".join(off)
    watched = Words(
        f"경보 {len(wires)}개 가운데 꺼진 것: {listed or '없음'}.",
        f"{len(wires)} wires; not watched: {listed or 'none'}.",
    )
    if not run.trips:
        return paragraph(Words(f"울린 경보가 없습니다. {watched.ko}", f"None tripped. {watched.en}"))
    rows = [
        (f"{trip['step']:,}", str(trip["wire"]), f"{trip['value']:.3g}", f"{trip['limit']:.3g}", str(trip["action"]))
        for trip in run.trips
    ]
    head = (
        Words("스텝", "step"),
        Words("경보", "wire"),
        Words("값", "value"),
        Words("한계", "limit"),
        Words("조치", "action"),
    )
    notes = "".join(f"<li>{escape(str(trip['wire']))}: {escape(str(trip['text']))}</li>" for trip in run.trips)
    return table(head, rows) + f"<ul>{notes}</ul>" + paragraph(watched)


def comparison_body(project: Project) -> str:
    """What judges, reward models and people said of two models, a table a comparison."""
    if not project.comparisons:
        text = Words(
            "rlhf evaluate compare의 결과(compare.json)가 이 폴더에 없습니다.",
            "There is no result of rlhf evaluate compare (compare.json) in these folders.",
        )
        return paragraph(text, "absent")
    return "".join(_comparison(each) for each in project.comparisons)


def _comparison(comparison: ComparisonFolder) -> str:
    report, finding = comparison.report, comparison_finding(comparison)
    title = f"<h3>{escape(str(report['second']))} ↔ {escape(str(report['first']))}</h3>"
    models = "<br>".join(f"{escape(each['name'])}: {escape(each['path'])}" for each in report["models"])
    rows = [_view(view) for view in report["views"]]
    head = (
        Words("판정", "by"),
        Words("승 / 무 / 패", "win / tie / loss"),
        Words("승률", "win rate"),
        "",
        Words("길이가 같다면", "at equal length"),
    )
    notes = [
        Words(OWN_REWARD if view["kind"] == "reward" else note, note)
        for view in report["views"]
        for note in view.get("notes", [])
    ]
    listed = "".join(f"<li>{both(note)}</li>" for note in notes)
    views = table(head, rows) if rows else paragraph(Words("판정한 이가 없습니다.", "Nobody judged."), "absent")
    return (
        f'{title}<p class="verdict{" good" if finding.tone == "good" else ""}">{both(finding.words)}</p>{views}'
        f'{f"<ul>{listed}</ul>" if listed else ""}<p class="path">{escape(str(comparison.path))}<br>{models}</p>'
    )


def _view(view: Row) -> list[Words | str]:
    kind = JUDGED_BY.get(view["kind"], Words(view["kind"], view["kind"]))
    row: list[Words | str] = [
        Words(f"{kind.ko} {view['name']}".strip(), f"{kind.en} {view['name']}".strip()),
        f"{view['wins']:,} / {view['ties']:,} / {view['losses']:,}",
    ]
    if "win_rate" not in view:
        return [*row, Words("판정 없음", "nobody decided"), "", ""]
    even = view["length_controlled"].get("win_rate")
    drawn = Cell(f'<div class="drawn">{interval_cell(view["win_rate"], 0.0, 1.0, 0.5)}</div>')
    return [*row, _percent(view["win_rate"]), drawn, _percent(even) if even else "–"]


def _percent(figure: Row) -> Cell:
    return figure_cell(figure, "{:.1%}".format)


def _interval(each: Row) -> str:
    return f"{each['low']:.3f} – {each['high']:.3f}"
