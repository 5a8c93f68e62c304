"""Writes the measured tables of README.md and README.ko.md from the JSON files in this folder.

python docs/figures/readme_tables.py                       rewrites what stands between the markers
python docs/figures/readme_tables.py --take RUN [RUN ...]  first copies the figures of finished quickstarts
python docs/figures/readme_tables.py --bench bench.json    first copies the figures of `make bench`

`--take` reads RUN/summary.json and what stage 3 left in RUN/ppo. A run's settings say its column (plain, --lora,
--estimator grpo); several seeds of a column are shown as a range. Run docs/images/make.py afterwards, which draws the
same figures.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from blocks import markdown, replaced

FIGURES = Path(__file__).parent
ROOT = FIGURES.parents[1]
PAGES = {"en": ROOT / "README.md", "ko": ROOT / "README.ko.md"}
Summary = Mapping[str, Any]
Cell = Callable[[Sequence[Summary]], str]


def rewritten(page: str, language: str) -> str:
    """The text of a README with every generated table made anew."""
    for name, file, make in (
        ("quickstart", "quickstart", quickstart_table),
        ("answers", "quickstart", answers_table),
        ("speed", "bench", speed_table),
    ):
        page = replaced(page, name, make(_figures(file), language))
    return page


def quickstart_table(figures: Mapping[str, Any], language: str) -> str:
    """SFT and PPO on the held-out prompts: a column for each command, a range over the seeds of its runs."""
    columns = figures["columns"]
    rows = [[names[language], *(cell(_summaries(column)) for column in columns)] for names, cell in _ROWS]
    head = {"en": "held-out prompts, SFT -> PPO", "ko": "평가용 프롬프트, SFT -> PPO"}[language]
    seeds = {"en": "seeds of the runs", "ko": "실행한 시드"}[language]
    runs = [
        seeds,
        *(", ".join(str(run["summary"]["settings"]["seed"]) for run in column["runs"]) for column in columns),
    ]
    return markdown([head, *(f"`{each['command']}`" for each in columns)], [*rows, runs])


def answers_table(figures: Mapping[str, Any], language: str) -> str:
    """The prompts that the quickstart prints, with an answer of both models from the first run."""
    head = {
        "en": ["prompt", "in English", "SFT model", "PPO model"],
        "ko": ["프롬프트", "영어로", "SFT 모델", "PPO 모델"],
    }[language]
    keys = ("prompt", "gloss", "before", "after")
    shown = _summaries(figures["columns"][0])[0]["ppo"]["samples"]
    return markdown(head, [[" ".join(sample[key].split()).replace("|", "\\|") for key in keys] for sample in shown])


def speed_table(figures: Mapping[str, Any], language: str) -> str:
    """Throughput over that of another library, or why there is none, and how still the machine was."""
    head = {
        "en": ["throughput", "compared with", "ratio (range over rounds)"],
        "ko": ["처리량", "비교 대상", "배율 (라운드별 범위)"],
    }[language]
    rows = [row for row in figures["rows"] if row["readme"] and _is_shown(row)]
    table = markdown(head, [[row["work"][language], row["against"][language], _ratio(row, language)] for row in rows])
    return f"{table}\n{_conditions(figures, language)}\n"


def take_bench(source: Path) -> None:
    """Copies the result of `make bench` into bench.json, as precisely as it is shown.

    Raises: SystemExit for a result of `--quick`.
    """
    figures = json.loads(source.read_text(encoding="utf-8"))
    if figures["quick"]:
        raise SystemExit(f"{source} was made with --quick, so its figures mean nothing")
    text = json.dumps(_rounded(figures), ensure_ascii=False, indent=2)
    (FIGURES / "bench.json").write_text(text + "\n", encoding="utf-8")


def take(folders: Sequence[Path]) -> None:
    """Copies the figures of finished quickstarts into quickstart.json, as precisely as they are shown."""
    path = FIGURES / "quickstart.json"
    figures = json.loads(path.read_text(encoding="utf-8"))
    taken: dict[str, list[dict[str, Any]]] = {}
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        run = {"summary": _rounded(_kept(summary)), "trace": _rounded(trace(folder / "ppo"))}
        taken.setdefault(_command(summary["settings"]), []).append(run)
    figures["columns"] = [
        {"command": command, "runs": sorted(runs, key=lambda run: run["summary"]["settings"]["seed"])}
        for command, runs in sorted(taken.items())
    ]
    figures["measured"] = datetime.date.today().isoformat()
    path.write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def trace(ppo: Path) -> dict[str, Any]:
    """The mean reward of each iteration over its KL to the SFT model, and best-of-n of that model: what is drawn."""
    lines = (ppo / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [step for step in map(json.loads, lines) if "objective/kl" in step]
    card = json.loads((ppo / "control.json").read_text(encoding="utf-8"))
    return {
        "iterations": [[step["objective/kl"], step["objective/reward"]] for step in steps],
        "best_of": [[arm["n"], arm["kl"], arm["mean"]] for arm in card["best_of_n"]],
        "sft": card["reference"]["mean"],
    }


def _command(settings: Mapping[str, Any]) -> str:
    lora = " --lora" if settings["lora"] else ""
    estimator = "" if settings["estimator"] == "gae" else f" --estimator {settings['estimator']}"
    return f"rlhf quickstart{lora}{estimator}"


def _kept(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Without what no table shows."""
    parts = {key: value for key, value in summary.items() if not key.endswith("_by_part")}
    return parts | {"ppo": {key: value for key, value in summary["ppo"].items() if key != "decoding"}}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def _summaries(column: Mapping[str, Any]) -> list[Summary]:
    return [run["summary"] for run in column["runs"]]


def _figures(name: str) -> Mapping[str, Any]:
    figures: Mapping[str, Any] = json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))
    return figures


def _range(values: Sequence[float], form: str) -> str:
    """A value, or the smallest and the largest of several."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low}–{high}"


def _figure(*path: str, form: str = ".3f") -> Cell:
    def cell(summaries: Sequence[Summary]) -> str:
        return _range([_at(summary, path) for summary in summaries], form)

    return cell


def _moved(*path: str, form: str = ".3f") -> Cell:
    """Before and after stage 3, of summary[path][before] or, for a measure, of summary[ppo][before][measure]."""

    def cell(summaries: Sequence[Summary]) -> str:
        return " -> ".join(
            _range([_at(summary, [stage if name == "*" else name for name in path]) for summary in summaries], form)
            for stage in ("before", "after")
        )

    return cell


def _at(summary: Summary, path: Sequence[str]) -> float:
    value: Any = summary
    for key in path:
        value = value[key]
    return float(value)


def _best_of(summaries: Sequence[Summary]) -> str:
    """Reward of PPO and of best-of-16 of the SFT model, each with its KL."""
    found = [summary["ppo"]["best_of_16"] for summary in summaries]
    arms = (("ppo_mean", "ppo_kl"), ("mean", "kl"))
    shown = [
        f"{_range([each[mean] for each in found], '.2f')} ({_range([each[kl] for each in found], '.1f')} nats)"
        for mean, kl in arms
    ]
    return " / ".join(shown)


def _quickest(summaries: Sequence[Summary]) -> str:
    """Minutes by the clock of the quickest run: the others may have shared the machine."""
    return f"{min(summary['seconds'] for summary in summaries) / 60:.1f}"


def _is_shown(row: Mapping[str, Any]) -> bool:
    """A figure, or something that the other side cannot do; not what there was no time for."""
    return "value" in row or bool(row.get("impossible"))


def _ratio(row: Mapping[str, Any], language: str) -> str:
    if "value" not in row:
        return {"en": "does not run there", "ko": "실행되지 않음"}[language]
    if row["range"] is None:
        return f"{row['value']:g}"
    low, high = row["range"]
    between = {"en": " to ", "ko": "~"}[language]
    return f"{row['value']:.2f} ({low:.2f}{between}{high:.2f})"


def _conditions(figures: Mapping[str, Any], language: str) -> str:
    """When and on what it was measured, and the load and the clock's drift meanwhile where they were noted."""
    machine, date = figures["machine"], figures["measured"]
    said = {"en": f"Measured {date}", "ko": f"{date} 측정"}[language]
    if "drift" in machine:
        load, drift = f"{machine['load_mean']:.1f}", f"{100 * machine['drift']:.0f}"
        said += {
            "en": f"; load average {load}, and the same matrix product varied by {drift} % meanwhile",
            "ko": f", 측정 중 평균 부하 {load}, 같은 행렬 곱의 시간 변동 {drift} %",
        }[language]
    note = figures.get("note")
    return f"{said}." + (f"\n{note[language]}" if note else "")


_ROWS: tuple[tuple[dict[str, str], Cell], ...] = (
    (
        {"en": "words that are Korean words of the demo's world", "ko": "데모의 세계에 있는 낱말의 비율"},
        _moved("fluency", "*"),
    ),
    (
        {"en": "broken syllables (U+FFFD)", "ko": "깨진 음절(U+FFFD) 수"},
        _moved("replacement_characters", "*", form=".0f"),
    ),
    ({"en": "answers about what was asked", "ko": "질문의 소재를 다룬 답변"}, _moved("on_topic", "*")),
    ({"en": "answers that suit the prompt", "ko": "프롬프트에 맞는 답변"}, _moved("answers_prompt", "*")),
    ({"en": "sentences in polite register", "ko": "존댓말 문장 비율"}, _moved("ppo", "*", "polite")),
    ({"en": "answers with a rude word", "ko": "무례한 말이 든 답변 비율"}, _moved("ppo", "*", "rude")),
    ({"en": "answers with a rude line", "ko": "무례한 문장이 든 답변 비율"}, _moved("rude_lines", "*")),
    ({"en": "distinct-2", "ko": "distinct-2"}, _moved("ppo", "*", "distinct2")),
    ({"en": "answers that end with EOS", "ko": "EOS로 끝난 답변 비율"}, _moved("ppo", "*", "eos")),
    ({"en": "reward model: pairwise accuracy", "ko": "보상 모델: 쌍별 정확도"}, _figure("reward", "accuracy")),
    (
        {"en": "reward model: pairs that differ in topic alone", "ko": "보상 모델: 소재만 다른 쌍의 정확도"},
        _figure("reward", "accuracy_topic"),
    ),
    (
        {"en": "shortcut: character n-grams of the answer", "ko": "지름길: 답변의 글자 n-그램"},
        _figure("reward", "shortcut_ngram"),
    ),
    (
        {"en": "shortcut: pick the longer answer", "ko": "지름길: 더 긴 답변 고르기"},
        _figure("reward", "longer_answer_accuracy"),
    ),
    (
        {
            "en": "mean reward on the same prompts (KL): PPO / best of 16 SFT answers",
            "ko": "같은 프롬프트의 평균 보상(KL): PPO / SFT 답변 16개 중 최고",
        },
        _best_of,
    ),
    (
        {
            "en": "log-likelihood gain, true over shuffled prompt (nats per token)",
            "ko": "원래 프롬프트와 뒤섞은 프롬프트의 로그 우도 차이 (토큰당 nats)",
        },
        _moved("ppo", "reference_margin", "*", "nats_per_token", form="+.2f"),
    ),
    (
        {"en": "processor seconds, all cores together", "ko": "프로세서 시간(초), 모든 코어 합계"},
        _figure("cpu_seconds", form=".0f"),
    ),
    ({"en": "minutes by the clock, the quickest run", "ko": "걸린 시간(분), 가장 빨랐던 실행"}, _quickest),
)


def main() -> None:
    """Rewrites both pages."""
    parser = argparse.ArgumentParser(description="Writes the measured tables of both READMEs.")
    parser.add_argument("--take", nargs="+", type=Path, metavar="RUN", help="folders of finished quickstarts")
    parser.add_argument("--bench", type=Path, metavar="JSON", help="result of `make bench`")
    arguments = parser.parse_args()
    if arguments.bench:
        take_bench(arguments.bench)
    if arguments.take:
        take(arguments.take)
    for language, path in PAGES.items():
        path.write_text(rewritten(path.read_text(encoding="utf-8"), language), encoding="utf-8")


if __name__ == "__main__":
    main()
