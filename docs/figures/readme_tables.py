"""Writes the measured tables of README.md and README.ko.md from the JSON files in this folder.

python docs/figures/readme_tables.py                                     rewrites what stands between the markers
python docs/figures/readme_tables.py --take runs/q runs/q-lora           first copies the figures of two quickstarts

`--take` reads RUN/summary.json of `rlhf quickstart` and of `rlhf quickstart --lora`, in this order. Run
docs/images/make.py afterwards, which draws the same figures.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent
ROOT = FIGURES.parents[1]
PAGES = {"en": ROOT / "README.md", "ko": ROOT / "README.ko.md"}
Summary = Mapping[str, Any]


def rewritten(page: str, language: str) -> str:
    """The text of a README with every generated table made anew."""
    for name, make in (("quickstart", quickstart_table), ("speed", speed_table)):
        page = _replaced(page, name, make(_figures(name), language))
    return page


def quickstart_table(figures: Mapping[str, Any], language: str) -> str:
    """SFT and PPO on the held-out prompts, a column for each quickstart."""
    columns = figures["columns"]
    rows = [(names[language], [written(each) for each in columns]) for names, written in _ROWS]
    head = {"en": "held-out prompts, SFT -> PPO", "ko": "평가용 프롬프트, SFT -> PPO"}[language]
    return _markdown([head, *(f"`{each['command']}`" for each in columns)], [[name, *cells] for name, cells in rows])


def speed_table(figures: Mapping[str, Any], language: str) -> str:
    """Throughput over that of another library."""
    head = {
        "en": ["throughput", "compared with", "ratio (range over rounds)"],
        "ko": ["처리량", "비교 대상", "배율 (라운드별 범위)"],
    }[language]
    return _markdown(
        head, [[row["work"][language], row["against"][language], _ratio(row, language)] for row in figures["rows"]]
    )


def take(folders: Sequence[Path]) -> None:
    """Copies the figures of finished quickstarts into quickstart.json, as precisely as they are shown."""
    path = FIGURES / "quickstart.json"
    figures = json.loads(path.read_text(encoding="utf-8"))
    for column, folder in zip(figures["columns"], folders, strict=True):
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        column["summary"] = _like(column["summary"], summary)
    figures["measured"] = datetime.date.today().isoformat()
    path.write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _like(shape: Any, summary: Any) -> Any:
    """The parts of a summary that `shape` names, rounded to what the tables show."""
    if isinstance(shape, dict):
        return {key: _like(inner, summary[key]) for key, inner in shape.items()}
    return round(summary, 4) if isinstance(summary, float) else summary


def _figures(name: str) -> Mapping[str, Any]:
    figures: Mapping[str, Any] = json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))
    return figures


def _replaced(page: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise SystemExit(f"the page must hold {begin} ... {end} once")
    return pattern.sub(lambda _: f"{begin}\n{table}{end}", page)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _share(column: Mapping[str, Any], *path: str) -> str:
    value: Any = column["summary"]
    for key in path:
        value = value[key]
    return f"{value:.3f}"


def _reward(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda column: _share(column, "reward", name)


def _moved(name: str, form: str = ".3f") -> Callable[[Mapping[str, Any]], str]:
    def cell(column: Mapping[str, Any]) -> str:
        ppo = column["summary"]["ppo"]
        return f"{ppo['before'][name]:{form}} -> {ppo['after'][name]:{form}}"

    return cell


def _kl(column: Mapping[str, Any]) -> str:
    return f"{column['summary']['ppo']['kl']:.1f}"


def _margin(column: Mapping[str, Any]) -> str:
    margin = column["summary"]["ppo"]["reference_margin"]
    return f"{margin['before']['nats_per_token']:+.4f} -> {margin['after']['nats_per_token']:+.4f}"


def _seconds(column: Mapping[str, Any]) -> str:
    return f"{column['summary']['seconds']:.0f}"


def _ratio(row: Mapping[str, Any], language: str) -> str:
    if row["range"] is None:
        return f"{row['ratio']:g}"
    low, high = row["range"]
    between = {"en": " to ", "ko": "~"}[language]
    return f"{row['ratio']:.2f} ({low:.2f}{between}{high:.2f})"


_ROWS: tuple[tuple[dict[str, str], Callable[[Mapping[str, Any]], str]], ...] = (
    ({"en": "reward model: pairwise accuracy", "ko": "보상 모델: 쌍별 정확도"}, _reward("accuracy")),
    (
        {"en": "reward model: accuracy on adjacent ranks", "ko": "보상 모델: 인접 순위만의 정확도"},
        _reward("accuracy_neighbours"),
    ),
    (
        {"en": "baseline: pick the longer answer", "ko": "기준선: 더 긴 답변 고르기"},
        _reward("longer_answer_accuracy"),
    ),
    ({"en": "sentences in polite register", "ko": "존댓말 문장 비율"}, _moved("polite")),
    ({"en": "answers with a rude word", "ko": "무례한 말이 든 답변 비율"}, _moved("rude")),
    ({"en": "distinct-2", "ko": "distinct-2"}, _moved("distinct2")),
    ({"en": "distinct whole answers", "ko": "서로 다른 답변 비율"}, _moved("distinct_answers")),
    ({"en": "answers that end with EOS", "ko": "EOS로 끝난 답변 비율"}, _moved("eos")),
    ({"en": "reward model score", "ko": "보상 모델 점수"}, _moved("reward", ".2f")),
    ({"en": "KL to the SFT model (nats per answer)", "ko": "SFT 모델과의 KL (답변당 nats)"}, _kl),
    (
        {
            "en": "log-likelihood gain, true over shuffled prompt (nats per token)",
            "ko": "원래 프롬프트와 뒤섞은 프롬프트의 로그 우도 차이 (토큰당 nats)",
        },
        _margin,
    ),
    (
        {
            "en": "total seconds on a busy machine, load 4 to 6",
            "ko": "전체 시간(초), 부하 4~6인 머신",
        },
        _seconds,
    ),
)


def main() -> None:
    """Rewrites both pages."""
    parser = argparse.ArgumentParser(description="Writes the measured tables of both READMEs.")
    parser.add_argument("--take", nargs=2, type=Path, metavar="RUN", help="folders of a quickstart and one with --lora")
    arguments = parser.parse_args()
    if arguments.take:
        take(arguments.take)
    for language, path in PAGES.items():
        path.write_text(rewritten(path.read_text(encoding="utf-8"), language), encoding="utf-8")


if __name__ == "__main__":
    main()
