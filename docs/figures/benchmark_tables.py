"""Writes the measured tables of docs/benchmarks.md and of docs/scaling.md and its Korean twin.

python docs/figures/benchmark_tables.py                             rewrites what stands between the markers
python docs/figures/benchmark_tables.py --take FILE.json [...]      first copies results of benchmarks/scaling.py and
                                                                    benchmarks/step_profile.py into this folder

docs/figures/bench.json is taken by readme_tables.py. Run docs/images/make.py afterwards, which draws the same figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from blocks import markdown, replaced
from scaling_outlook import outlook

FIGURES = Path(__file__).parent
DOCS = FIGURES.parent
BENCHMARKS = DOCS / "benchmarks.md"
SCALING = {"en": DOCS / "scaling.md", "ko": DOCS / "scaling.ko.md"}
Figures = Mapping[str, Any]
NAMES = {
    "tokens": {"en": "longest row in tokens, 8 rows (stage 1)", "ko": "가장 긴 행의 토큰 수, 행 8개 (1단계)"},
    "answers": {"en": "answers per prompt, K (stage 2)", "ko": "프롬프트당 답변 수 K (2단계)"},
    "parameters": {"en": "parameters of the model (stage 1)", "ko": "모델의 파라미터 수 (1단계)"},
    "ranks": {"en": "ranks, the same batch (stage 1)", "ko": "rank 수, 같은 배치 (1단계)"},
    "prompts": {"en": "prompts per iteration (stage 3)", "ko": "이터레이션당 프롬프트 수 (3단계)"},
    "slots": {"en": "decode slots, one decode step", "ko": "디코딩 슬롯 수, 디코딩 스텝 하나"},
    "import": {"en": "rows, `rlhf data import`", "ko": "행 수, `rlhf data import`"},
    "check": {"en": "rows, `rlhf data check`", "ko": "행 수, `rlhf data check`"},
    "filter": {"en": "rows, `rlhf data filter --clean`", "ko": "행 수, `rlhf data filter --clean`"},
}
NONE = {"en": "Not measured yet.\n", "ko": "아직 측정하지 않았습니다.\n"}


def bench_table(figures: Figures) -> str:
    """A row for each measure, with the machine's state; what was not measured, and why."""
    rows = [
        [row["work"]["en"], row["against"]["en"], _ratio(row), str(row["rounds"]), *_state(row["machine"])]
        for row in figures["rows"]
        if "value" in row
    ]
    text = markdown(["measure", "compared with", "figure (range)", "rounds", "load", "clock drift"], rows)
    left = [row for row in figures["rows"] if "missing" in row]
    missing = [f"- {row['work']['en']} ({row['key']}): {row['missing']}\n" for row in left]
    return text + (f"\nNot measured:\n\n{''.join(missing)}" if missing else "")


def profile_tables(figures: Figures | None) -> str:
    """The operators of a step by stage, then the host's own time."""
    if figures is None:
        return NONE["en"]
    blocks = [_operators(stage, found) for stage, found in figures["stages"].items()]
    host = [[name, f"{1000 * each['host_s']:.2f}", f"{each['launches']:.0f}"] for name, each in figures["host"].items()]
    blocks.append(markdown(["on the pretend GPU", "host ms", "launches"], host))
    return "\n".join([*blocks, _conditions(figures, "en")])


def _operators(stage: str, found: Figures) -> str:
    rows = [
        [f"`{each['operator']}`", f"{each['calls']:.0f}", f"{each['ms']:.1f}", f"{each['share']:.1%}"]
        for each in found["operators"]
    ]
    rows.append(["other operators", "", "", f"{found['others']:.1%}"])
    rows.append(["outside operators", "", "", f"{found['python']:.1%}"])
    return markdown([f"{stage}, {found['step_ms']:.0f} ms per step", "calls", "ms of its own", "share"], rows)


def curves_table(figures: Figures | None, language: str) -> str:
    """The exponent of time and of memory over each measured number, with the range and the fit's worst point.

    The picture below it is drawn by docs/images/make.py.
    """
    if figures is None:
        return NONE[language]
    head = {
        "en": ["what grows", "from, to", "time: first, last", "time ~ x^b, b", "memory ~ x^b, b", "worst point"],
        "ko": ["늘리는 값", "범위", "시간: 처음, 끝", "시간 ~ x^b의 b", "메모리 ~ x^b의 b", "가장 먼 점"],
    }[language]
    rows = []
    for name, curve in figures["curves"].items():
        points, time, memory = curve["points"], curve["fits"]["time_s"], curve["fits"]["memory_mib"]
        first, last = points[0], points[-1]
        rows.append(
            [
                NAMES[name][language], f"{first['x']:,.0f}, {last['x']:,.0f}",
                f"{_seconds(first['time_s'])}, {_seconds(last['time_s'])}", _exponent(time), _exponent(memory),
                f"{max(time['worst'], memory['worst']):.0%}",
            ]
        )  # fmt: skip
    picture = {
        "en": "![How time grows with each number](images/scaling.svg)",
        "ko": "![값마다 시간이 늘어나는 정도](images/scaling.ko.svg)",
    }[language]
    return f"{markdown(head, rows)}\n{picture}\n\n{_conditions(figures, language)}"


def outlook_table(figures: Figures | None, language: str) -> str:
    """What `rlhf plan` says of large models on A100s, beside the measured exponent of model size once there is one."""
    rows_of_plan = outlook({}) if figures is None else figures["outlook"]
    head = {
        "en": ["stage", "Polyglot-ko", "A100-80G", "planned GB per GPU", "fits", "planned min", "scaled min"],
        "ko": ["단계", "Polyglot-ko", "A100-80G", "계획 GB(GPU당)", "들어가는지", "계획 시간(분)", "비례 시간(분)"],
    }[language]
    yes, no = {"en": ("yes", "no"), "ko": ("예", "아니요")}[language]
    rows = []
    for row in rows_of_plan:
        fits = yes if row["fits"] else f"`{row['change']}`" if row["change"] else no
        scaled = "-" if row["scaled_hours"] is None else f"{60 * row['scaled_hours']:.2f}"
        planned = f"{60 * row['planned_hours']:.2f}"
        model = [row["stage"], row["size"].upper(), str(row["cards"])]
        rows.append([*model, f"{row['planned_gb']:.1f}", fits, planned, scaled])
    return markdown(head, rows)


def take(files: Sequence[Path]) -> None:
    """Copies results into this folder under the name of their benchmark.

    Raises: SystemExit for a result of --quick, or one that is neither.
    """
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        name = "scaling" if "curves" in content else "step_profile" if "stages" in content else None
        if name is None:
            raise SystemExit(f"{file} is no result of benchmarks/scaling.py or benchmarks/step_profile.py")
        if content["quick"]:
            raise SystemExit(f"{file} was made with --quick, so its figures mean nothing")
        text = json.dumps(_rounded(content), ensure_ascii=False, indent=1)
        (FIGURES / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Five significant digits: more than is shown."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _ratio(row: Figures) -> str:
    if row["range"] is None:
        return f"{row['value']:g}"
    low, high = row["range"]
    return f"{row['value']:.2f} ({low:.2f} to {high:.2f})"


def _exponent(fit: Figures) -> str:
    if fit["low"] is None:
        return f"{fit['exponent']:.2f}"
    return f"{fit['exponent']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _state(machine: Figures) -> tuple[str, str]:
    return (f"{machine['load_mean']:.1f}", f"{machine['drift']:.0%}") if machine else ("-", "-")


def _conditions(figures: Figures, language: str) -> str:
    """When it was measured, and how still the machine was."""
    states = [curve["machine"] for curve in figures.get("curves", {}).values() if curve["machine"]]
    states = states or ([figures["machine"]] if "drift" in figures["machine"] else [])
    if not states:
        return {"en": f"Measured {figures['measured']}.\n", "ko": f"{figures['measured']} 측정.\n"}[language]
    load, cores = sum(each["load_mean"] for each in states) / len(states), figures["machine"]["cores"]
    drift = max(each["drift"] for each in states)
    return {
        "en": f"Measured {figures['measured']} on {cores} cores, load average {load:.1f}; the same matrix product took "
        f"up to {drift:.0%} longer than at its fastest.\n",
        "ko": f"{figures['measured']} 측정, 코어 {cores}개, 평균 부하 {load:.1f}. 같은 행렬 곱은 가장 빠를 때보다 최대 "
        f"{drift:.0%} 더 걸렸습니다.\n",
    }[language]


def figures_of(name: str) -> Figures | None:
    """The committed figures, None where there are none yet."""
    path = FIGURES / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def pages() -> dict[Path, str]:
    """Every page with its tables made anew."""
    scaling, bench = figures_of("scaling"), figures_of("bench")
    assert bench is not None
    page = BENCHMARKS.read_text(encoding="utf-8")
    page = replaced(page, "bench", bench_table(bench))
    made = {BENCHMARKS: replaced(page, "profile", profile_tables(figures_of("step_profile")))}
    for language, path in SCALING.items():
        page = replaced(path.read_text(encoding="utf-8"), "curves", curves_table(scaling, language))
        made[path] = replaced(page, "outlook", outlook_table(scaling, language))
    return made


def main() -> None:
    """Rewrites the pages."""
    parser = argparse.ArgumentParser(description="Writes the measured tables of the benchmark pages.")
    parser.add_argument("--take", nargs="+", type=Path, metavar="JSON", help="results of scaling.py or step_profile.py")
    arguments = parser.parse_args()
    if arguments.take:
        take(arguments.take)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
