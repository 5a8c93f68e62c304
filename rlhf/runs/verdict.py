"""What a project's runs come to, in plain sentences of both languages: verdict, what weakens it, what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rlhf.artifacts.run_folder import RunFolder
from rlhf.evaluate.control_group import MIN_PROMPTS
from rlhf.runs.project import (
    ComparisonFolder,
    Project,
    replaced_parents,
    sources_of,
    trained_and_held_out,
)
from rlhf.config.stages import STAGES
from rlhf.runs.bilingual import STATUSES, Words
from rlhf.runs.listing import status_of
from rlhf.runs.record import RunRecord

Row = Mapping[str, Any]
SHORTCUTS = {
    "longer_answer": Words("더 긴 답변 고르기", "the longer answer"),
    "character_ngrams": Words("글자 n-그램", "character n-grams"),
}
SHOWN_HASH = 12
OWN_REWARD = (
    "비교한 모델이 학습에 쓴 바로 그 보상 모델이 판정했습니다. "
    "학습으로 얻은 점수일 뿐, 답변이 나아졌는지는 알려 주지 않습니다."
)  # what the one note of a reward model's view says


class Statement(NamedTuple):
    """good: better, beyond its interval; bad: worse, or it went wrong; open: not known."""

    tone: Literal["good", "bad", "open"]
    words: Words


def status(run: RunRecord) -> str:
    """That of state.json, or `killed` where it says running and nobody holds the lock."""
    return status_of(RunFolder(run.path))


def stage_finding(run: RunRecord) -> Statement:
    """A run's result in a sentence, with what kept it from its end, if anything did."""
    found = {"sft": _sft, "reward": _reward, "ppo": _ppo}[run.stage](run)
    state, reason = status(run), str(run.state.get("reason", ""))
    if state == "finished" and not reason:
        return found
    known = STATUSES.get(state, Words(state, state))
    why = f": {reason}" if reason else "."
    before = Words(f"실행 상태는 ‘{known.ko}’입니다{why}", f"The run is {known.en}{why}")
    return Statement("bad" if state != "finished" else found.tone, _joined([before, found.words]))


def _sft(run: RunRecord) -> Statement:
    losses = [(row["eval_loss"], row["step"]) for row in run.metrics if "eval_loss" in row]
    before = next((row["eval_loss_before"] for row in run.metrics if "eval_loss_before" in row), None)
    if not losses:
        return Statement(
            "open",
            Words(
                "평가 데이터(data.eval)를 읽지 않아 학습 손실 말고는 알 수 없습니다.",
                "No held-out rows were read (data.eval): only the training loss is known.",
            ),
        )
    best, step = min(losses)
    start = (
        Words("", "") if before is None else Words(f"학습 전 {before:.3f}에서 ", f" from {before:.3f} before training")
    )
    words = Words(
        f"평가 손실이 {start.ko}{step:,}스텝의 {best:.3f}(토큰당 nats)가 되었습니다.",
        f"Held-out loss{start.en}: {best:.3f} nats a token at step {step:,}.",
    )
    return Statement("open" if before is None else "good" if best < before else "bad", words)


def _reward(run: RunRecord) -> Statement:
    card = run.card or {}
    if not card.get("num_pairs"):
        return Statement(
            "open",
            Words(
                "성적표가 없어 보상 모델이 얼마나 맞는지 알 수 없습니다.",
                "There is no report card: how often the reward model is right is not known.",
            ),
        )
    interval = f"{card['accuracy']:.3f} [{card['low']:.3f}, {card['high']:.3f}]"
    right = Words(
        f"평가 쌍 {card['num_pairs']:,}개의 순서를 맞힌 비율은 {interval}입니다.",
        f"{interval} of {card['num_pairs']:,} held-out pairs in the right order.",
    )
    beats = bool(card.get("shortcuts", {}).get("beats_shortcuts"))
    return Statement("good" if beats else "open", _joined([right, shortcut_words(card)]))


def shortcut_words(card: Row) -> Words:
    """Whether a reward model does better than rules that read nothing."""
    found = card.get("shortcuts", {})
    if not found:
        return Words("지름길과는 비교하지 않았습니다.", "It was not compared with shortcuts.")
    gap = found.get("model_minus_best")
    against = ""
    if gap:
        name = SHORTCUTS.get(found.get("best_baseline", ""), Words("기준선", "")).ko
        against = f"({name} 대비 {gap['difference']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}])"
    if found.get("beats_shortcuts"):
        korean = f"내용을 읽지 않는 지름길보다 낫습니다{against}."
    elif gap and gap["high"] < 0:
        korean = f"내용을 읽지 않는 지름길만도 못합니다{against}."
    else:
        korean = f"내용을 읽지 않는 지름길보다 낫다고 할 수 없습니다{against}."
    return Words(korean, str(found.get("verdict", "")))


def _ppo(run: RunRecord) -> Statement:
    if run.control is not None:
        tone = {"better": "good", "worse": "bad"}.get(run.control["outcome"], "open")
        return Statement(tone, _control_words(run.control))  # type: ignore[arg-type]
    words = Words(
        "대조군이 없어 SFT 모델보다 나은지 알 수 없습니다.",
        "There is no control group: whether it is better than the SFT model is not known.",
    )
    rewards = [row["reward"] for row in run.metrics if "reward" in row]
    if len(rewards) > 1:
        way = Words(
            f"학습 보상은 {rewards[0]:.3f}에서 {rewards[-1]:.3f}(으)로 바뀌었습니다.",
            f"The training reward went from {rewards[0]:.3f} to {rewards[-1]:.3f}.",
        )
        words = _joined([words, way])
    return Statement("open", words)


def _control_words(control: Row) -> Words:
    """A control group's verdict; it is always by the reward that was trained on, so that comes first."""
    gap, count, policy = control["policy_minus_reference"], control["num_prompts"], control["policy"]
    figures = f"{gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}], 프롬프트 {count:,}개"
    if control["outcome"] == "unknown":
        needed = gap.get("prompts_for_80_percent_power")
        more = f" 이만한 차이를 확인하려면 프롬프트가 {max(MIN_PROMPTS, needed):,}개쯤 필요합니다." if needed else ""
        first = f"PPO 정책과 시작 모델의 점수 차이를 가릴 수 없습니다({figures}).{more}"
    else:
        word = "높습니다" if control["outcome"] == "better" else "낮습니다"
        first = f"PPO 정책의 점수가 시작 모델보다 {word}({figures})."
    arms = ", ".join(f"best-of-{arm['n']} {arm['mean']:.3f}({arm['kl']:.2f} nats)" for arm in control["best_of_n"])
    beside = f" 시작 모델에서 여러 개를 뽑아 고르면 {arms}입니다." if arms else ""
    korean = f"{first} 정책은 KL {policy['kl']:.2f} nats에서 {policy['mean']:.3f}점입니다.{beside}"
    return Words(f"PPO가 학습에 쓴 보상으로 재면, {korean}", f"By the reward PPO trained on: {control['verdict']}")


def _joined(parts: Sequence[Words]) -> Words:
    return Words(" ".join(each.ko for each in parts if each.ko), " ".join(each.en for each in parts if each.en))


def headline(project: Project) -> Statement:
    """Is the policy better? By comparisons where there are some, then by control groups; `good` with no weak point.

    Each is a line of its own.
    """
    findings = [comparison_finding(each) for each in project.comparisons]
    findings += [_named(run, project, stage_finding(run)) for run in project.of_stage("ppo")]
    if not findings:
        furthest = project.runs[-1].stage
        runs = project.of_stage(furthest)
        nothing = Words(
            "PPO 실행이 없습니다. 지금까지 온 곳은 다음과 같습니다.", "There is no PPO run. As far as it has come:"
        )
        results = [_named(run, project, stage_finding(run)).words for run in runs]
        return Statement("open", _joined([nothing, *results]))
    tones = {each.tone for each in findings}
    clear = tones == {"good"} and not weak_points(project)
    words = Words("\n".join(each.words.ko for each in findings), "\n".join(each.words.en for each in findings))
    return Statement("bad" if tones == {"bad"} else "good" if clear else "open", words)


def _named(run: RunRecord, project: Project, finding: Statement) -> Statement:
    """With the run's name before it where there are several of its stage."""
    if len(project.of_stage(run.stage)) == 1:
        return finding
    return Statement(finding.tone, Words(f"{run.path.name}: {finding.words.ko}", f"{run.path.name}: {finding.words.en}"))


def comparison_finding(comparison: ComparisonFolder) -> Statement:
    report = comparison.report
    tone = {"better": "good", "worse": "bad"}.get(report["outcome"], "open")
    return Statement(tone, Words(report["sentence"]["ko"], report["sentence"]["en"]))  # type: ignore[arg-type]


def weak_points(project: Project) -> list[Words]:
    """What keeps the verdict from being taken at its word."""
    found = []
    for run in project.of_stage("reward"):
        if run.card and run.card.get("num_pairs") and not run.card.get("shortcuts", {}).get("beats_shortcuts"):
            found.append(
                Words(
                    f"보상 모델 {run.path.name}: {shortcut_words(run.card).ko} 보상이 올라도 답변이 나아졌다는 "
                    "뜻은 아닐 수 있습니다.",
                    f"Reward model {run.path.name}: {shortcut_words(run.card).en} A higher reward need not mean "
                    "a better answer.",
                )
            )
    for comparison in project.comparisons:
        found += _weak_comparison(comparison)
    for run in project.of_stage("ppo"):
        if not project.comparisons:
            found += _own_reward(run)
        found += _cheaper_sampling(run)
        if run.trips:
            wires = ", ".join(dict.fromkeys(str(trip["wire"]) for trip in run.trips))
            found.append(
                Words(f"{run.path.name}에서 경보가 울렸습니다: {wires}.", f"Tripwires in {run.path.name}: {wires}.")
            )
    return found + _weak_data(project)


def _weak_comparison(comparison: ComparisonFolder) -> list[Words]:
    """The notes of the view that heads a comparison; those of a reward model say that training was against it."""
    notes = [str(note) for note in comparison.report.get("notes", [])]
    views = comparison.report["views"]
    if notes and views and views[0].get("kind") == "reward":
        return [
            Words(f"비교 {comparison.path.name}: {OWN_REWARD}", f"Comparison {comparison.path.name}: {note}")
            for note in notes
        ]
    return [
        Words(f"비교 {comparison.path.name}: {note}", f"Comparison {comparison.path.name}: {note}") for note in notes
    ]


def _own_reward(run: RunRecord) -> list[Words]:
    if run.control is None:
        return []
    korean = (
        f"{run.path.name}의 대조군은 PPO가 학습에 쓴 바로 그 보상으로 채점했습니다. "
        "사람의 판단과 같다는 보장은 없습니다."
    )
    english = (
        f"The control group of {run.path.name} is scored by the reward PPO trained on: it does not say whether people "
        "would agree."
    )
    return [Words(korean, english)]


def _cheaper_sampling(run: RunRecord) -> list[Words]:
    """The first best-of-n that scores at least as much as the policy at no more KL, if one does."""
    if run.control is None:
        return []
    policy = run.control["policy"]
    for arm in run.control["best_of_n"]:
        if arm["mean"] >= policy["mean"] and arm["kl"] <= policy["kl"]:
            korean = (
                f"시작 모델에서 답변 {arm['n']}개를 뽑아 가장 높은 것을 고르면(best-of-{arm['n']}) "
                f"더 적은 KL로 점수가 더 높습니다: {arm['kl']:.2f} nats에서 {arm['mean']:.3f}, "
                f"{run.path.name}의 경우 {policy['kl']:.2f} nats에서 {policy['mean']:.3f}."
            )
            english = (
                f"Best-of-{arm['n']} of the model it started from scores more ({arm['mean']:.3f}) at less KL "
                f"({arm['kl']:.2f} nats) than {run.path.name} ({policy['mean']:.3f} at {policy['kl']:.2f})."
            )
            return [Words(korean, english)]
    return []


def _weak_data(project: Project) -> list[Words]:
    found = []
    for uses in sources_of(project.runs):
        if trained_and_held_out(uses):
            name = str(uses[0].report.get("name", ""))
            found.append(
                Words(
                    f"데이터 {name}은(는) 학습에도 평가에도 쓰였습니다. 그 평가는 처음 보는 데이터의 결과가 아닙니다.",
                    f"Data {name} is both trained on and measured on: those figures are not of unseen data.",
                )
            )
    for path, hashes in replaced_parents(project.runs).items():
        listed = ", ".join(each[:SHOWN_HASH] for each in hashes)
        found.append(
            Words(
                f"{path}의 모델이 실행 사이에 바뀌었습니다(해시 {listed}). 단계들이 같은 모델에서 이어지지 않았습니다.",
                f"The model at {path} was replaced between runs (hashes {listed}): the stages do not follow one model.",
            )
        )
    return found


class Missing(NamedTuple):
    """What a project has not, and the command that would make it."""

    words: Words
    command: str


def missing(project: Project) -> list[Missing]:
    """Pieces of a whole project that are not in the folders."""
    found = [
        Missing(
            Words(f"{stage.korean_title}의 실행", f"A run of {stage.title}"), f"deepspeed scripts/{stage.script} ..."
        )
        for name, stage in STAGES.items()
        if not project.of_stage(name)
    ]
    for run in project.runs:
        found += _missing_in(run)
    if not project.comparisons:
        words = Words(
            "두 모델의 비교(심판 모델, 별도 보상 모델, 사람)", "A comparison by a judge, another reward model or people"
        )
        found.append(Missing(words, "rlhf evaluate compare SFT PPO --prompts FILE --out DIR --judge URL=MODEL"))
    return found


def _missing_in(run: RunRecord) -> list[Missing]:
    name, found = run.path.name, []
    if not run.manifest:
        found.append(Missing(Words(f"{name}: 출처 기록(manifest.json)", f"{name}: manifest.json"), ""))
    if run.stage == "sft" and not any("eval_loss" in row for row in run.metrics):
        found.append(Missing(Words(f"{name}: 평가 손실", f"{name}: held-out loss"), "data.eval=FILE"))
    if run.stage == "reward" and not (run.card or {}).get("num_pairs"):
        words = Words(f"{name}: 보상 모델 성적표", f"{name}: the reward model's report card")
        found.append(Missing(words, "data.eval=FILE"))
    if run.stage == "ppo" and run.control is None:
        found.append(
            Missing(Words(f"{name}: 대조군", f"{name}: the control group"), "control.enabled=true, data.eval=FILE")
        )
    if run.stage == "ppo" and not (run.config.get("tripwires") or {}).get("held_out_reward"):
        words = Words(
            f"{name}: 보상 해킹을 지켜볼 별도 보상 모델", f"{name}: a held-out reward model to watch for hacking"
        )
        found.append(Missing(words, "tripwires.held_out_reward=RUN"))
    if run.stage != "reward" and not run.samples:
        found.append(Missing(Words(f"{name}: 답변 표본", f"{name}: sampled answers"), "log.num_samples=3"))
    return found
