"""The documentation: links that lead somewhere, Korean twins, tables and pictures from figures, commands that parse."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import rlhf
from rlhf.cli import build_parser
from rlhf.config.arguments import parse_stage_arguments
from rlhf.config.load import load_config
from rlhf.config.metric_names import metric_of, metrics
from rlhf.config.stages import STAGES

ROOT = Path(rlhf.__file__).parents[1]
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
COMMENT = re.compile(r"(^|\s)#.*$", re.MULTILINE)
SHELL = ("sh", "bash")
SAME_IN_BOTH = (*SHELL, "python", "json", "yaml")  # what is typed or parsed; pictures and layouts are translated
GROUPS = sorted({each.name.partition("/")[0] for each in metrics() if "/" in each.name})
STAGE_OF_SCRIPT = {stage.script: stage.name for stage in STAGES.values()}


def prose(text: str) -> str:
    """A page without its fenced blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def links(text: str) -> list[str]:
    """Targets of a page's relative links."""
    return [target for target in LINK.findall(prose(text)) if not re.match(r"[a-z]+:", target)]


def headings(text: str) -> list[tuple[int, str]]:
    """(level, title) of a page's headings."""
    return [(len(marks), title) for marks, title in HEADING.findall(FENCE.sub("", text))]


def anchors(text: str) -> set[str]:
    """Fragments under which GitHub shows a page's headings."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for _, title in headings(text)}


def code(text: str) -> list[tuple[str, str]]:
    """(language, content) of a page's fenced blocks: commands without comments, and nothing of what is translated."""
    found = []
    for language, content in FENCE.findall(text):
        shown = content if language in SAME_IN_BOTH else ""
        if language in SHELL:
            shown = "\n".join(line.rstrip() for line in COMMENT.sub("", shown).splitlines() if line.strip())
        found.append((language, shown))
    return found


def dead_links(page: Path, text: str) -> list[str]:
    """Links of a page to files that do not exist, or to headings that another page lacks."""
    dead = []
    for target in links(text):
        name, _, fragment = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (
            fragment and path.suffix == ".md" and fragment not in anchors(path.read_text(encoding="utf-8"))
        ):
            dead.append(target)
    return dead


def reachable(start: Path) -> list[Path]:
    """The pages one gets to from `start`, itself included."""
    found, waiting = {start}, [start]
    while waiting:
        page = waiting.pop()
        for target in links(page.read_text(encoding="utf-8")):
            path = (page.parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.is_file() and path not in found:
                found.add(path)
                waiting.append(path)
    return sorted(found)


PAGES = reachable(README)
KOREAN = sorted([ROOT / "README.ko.md", *(ROOT / "docs").rglob("*.ko.md")])


def english_of(page: Path) -> Path:
    return page.with_name(page.name.replace(".ko.md", ".md"))


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_readme_leads_to_every_page():
    assert len(PAGES) > 25
    assert sorted([README, ROOT / "README.ko.md", *(ROOT / "docs").rglob("*.md")]) == PAGES


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_no_link_is_dead(page):
    assert dead_links(page, page.read_text(encoding="utf-8")) == []


def test_a_dead_link_is_found(tmp_path):
    other = tmp_path / "other.md"
    other.write_text("# One title\n```sh\n# not a title\n```\n", encoding="utf-8")
    text = (
        "[a](other.md) [b](other.md#one-title) [c](gone.md) [d](other.md#not-a-title) `[e](gone.md)` [f](https://x.y)"
    )
    assert dead_links(tmp_path / "page.md", text) == ["gone.md", "other.md#not-a-title"]


# Korean twins


def test_every_promised_korean_page_exists():
    promised = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"\[한국어\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert len(promised) >= 4
    assert sorted(promised) == KOREAN


@pytest.mark.parametrize("page", KOREAN, ids=shown)
def test_a_korean_page_and_its_english_one_name_each_other(page):
    english = english_of(page)
    assert english.is_file()
    assert f"[English]({english.name})" in page.read_text(encoding="utf-8")
    assert f"[한국어]({page.name})" in english.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", KOREAN, ids=shown)
def test_twins_have_the_same_sections(page):
    twins = [each.read_text(encoding="utf-8") for each in (english_of(page), page)]
    english, korean = ([level for level, _ in headings(text)] for text in twins)
    assert korean == english
    tables = [[line.count("|") for line in prose(text).splitlines() if line.startswith("|")] for text in twins]
    assert tables[1] == tables[0]


@pytest.mark.parametrize("page", KOREAN, ids=shown)
def test_twins_have_the_same_commands(page):
    assert code(page.read_text(encoding="utf-8")) == code(english_of(page).read_text(encoding="utf-8"))


def test_code_is_compared_without_its_comments():
    english = "```sh\nrlhf runs a   # list\n\n# and\nrlhf stop b\n```\n"
    korean = "```sh\nrlhf runs a # 목록\n# 그리고\nrlhf stop b\n```\n"
    assert code(english) == code(korean) == [("sh", "rlhf runs a\nrlhf stop b")]
    assert code(english) != code(korean.replace("stop", "runs"))


# Figures


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_tables_are_those_of_the_figures(language):
    tables = script(ROOT / "docs" / "figures" / "readme_tables.py")
    page = tables.PAGES[language].read_text(encoding="utf-8")
    assert tables.rewritten(page, language) == page
    assert tables.rewritten(page.replace("| distinct-2 |", "| edited by hand |"), language) == page


def test_a_side_that_cannot_do_it_is_a_row_and_what_was_not_measured_is_none():
    tables = script(ROOT / "docs" / "figures" / "readme_tables.py")
    texts = {"work": {"en": "stage 3", "ko": "3단계"}, "against": {"en": "LLaMA-Factory", "ko": "LLaMA-Factory"}}
    rows = [
        {**texts, "key": "ppo_lf", "readme": True, "missing": "ImportError", "impossible": True},
        {**texts, "key": "ppo_swift", "readme": True, "missing": "no time was left"},
        {**texts, "key": "ppo", "readme": True, "value": 2.0, "range": [1.5, 2.5]},
        {**texts, "key": "more", "readme": False, "value": 3.0, "range": None},
    ]
    figures = {"measured": "2026-01-02", "rows": rows, "machine": {"load_mean": 0.4, "drift": 0.031}}
    assert tables.speed_table(figures, "en").splitlines()[2:] == [
        "| stage 3 | LLaMA-Factory | does not run there |",
        "| stage 3 | LLaMA-Factory | 2.00 (1.50 to 2.50) |",
        "",
        "Measured 2026-01-02; load average 0.4, and the same matrix product varied by 3 % meanwhile.",
    ]
    assert "실행되지 않음" in tables.speed_table(figures, "ko")


def test_figures_of_a_trial_are_refused(tmp_path):
    result = tmp_path / "bench.json"
    result.write_text('{"quick": true, "curves": {}}', encoding="utf-8")
    with pytest.raises(SystemExit, match="--quick"):
        script(ROOT / "docs" / "figures" / "readme_tables.py").take_bench(result)
    with pytest.raises(SystemExit, match="--quick"):
        script(ROOT / "docs" / "figures" / "benchmark_tables.py").take([result])


def test_the_tables_of_the_benchmarks_are_those_of_the_figures():
    tables = script(ROOT / "docs" / "figures" / "benchmark_tables.py")
    made = tables.pages()
    assert len(made) == 3
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text


def test_a_curve_is_a_row_with_its_exponents_in_both_languages():
    tables = script(ROOT / "docs" / "figures" / "benchmark_tables.py")
    fit = {"exponent": 0.5, "scale": 1.0, "low": 0.4, "high": 0.6, "worst": 0.07}
    points = [{"x": 1, "time_s": 0.5, "memory_mib": 8}, {"x": 64, "time_s": 4.0, "memory_mib": 8}]
    curve = {"points": points, "fits": {"time_s": fit, "memory_mib": {**fit, "low": None}}, "machine": {}}
    figures = {"measured": "2026-01-02", "machine": {"cores": 2}, "curves": {"slots": curve}}
    row = "| decode slots, one decode step | 1, 64 | 500 ms, 4 s | 0.50 [0.40, 0.60] | 0.50 | 7% |"
    assert tables.curves_table(figures, "en").splitlines()[2] == row
    assert "디코딩 슬롯" in tables.curves_table(figures, "ko")


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_table_of_metrics_is_that_of_the_registry(language):
    tables = script(ROOT / "docs" / "figures" / "metrics_table.py")
    page = tables.PAGES[language].read_text(encoding="utf-8")
    assert tables.rewritten(page, language) == page
    rows = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert rows == [metric.name for metric in metrics()]
    assert tables.rewritten(page.replace("| `objective/kl` |", "| `kl` |"), language) == page


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_table_of_measures_is_what_the_rules_reach(language):
    tables = script(ROOT / "docs" / "figures" / "measures_table.py")
    page = tables.PAGES[language].read_text(encoding="utf-8")
    assert tables.rewritten(page, language) == page
    assert tables.rewritten(page.replace("| **rude** |", "| **all rude words** |"), language) == page


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_tables_of_arms_are_those_of_their_figures(language):
    """With a recorded comparison or without one; a verdict of a made one is on the page."""
    tables = script(ROOT / "docs" / "figures" / "choosing_tables.py")
    page = tables.PAGES[language].read_text(encoding="utf-8")
    assert tables.rewritten(page, language, tables.recorded()) == page
    arm = {"reward": 1.0, "interval": [0.5, 1.5], "kl": 2.0, "seconds": 1234.5, "seconds_by_part": {"train": 1234.5}}
    arm |= {"cpu_seconds_by_part": {"reward": 9.6, "train": 2000.0}}
    arm |= dict.fromkeys(tables.SHARES, 0.5) | {"on_topic": None, "tokens": {"trained": 5000, "sampled": 70}}
    arm |= {"budget": {"steps": 12, "rows_per_step": 128, "answers": 1536}}
    pair = {"of": "ppo", "minus": "sft", "mean": 1.0, "low": 0.25, "high": 1.75, "p_corrected": 0.012, "differ": True}
    pair |= {"prompts_for_80_percent_power": 4321}
    counts = {"measured": "2030-01-02", "num_prompts": 300, "answers_per_prompt": 2}
    report = {"arms": {"sft": arm | {"budget": {}}, "ppo": arm}, "comparisons": [pair], **counts}
    made = tables.rewritten(page, language, report | {"verdict": {"en": "Ship it.", "ko": "배포하세요."}})
    assert "| `ppo` | 1.00 [0.50, 1.50] | 2.00 | 50.0% | – | 50.0% | 50.0% | 50.0% | 1,234 |" in made
    assert "| `ppo` | 12 x 128 | 1,536 | 70 | 5,000 | train 1,234 | reward 10 + train 2,000 |" in made
    assert "| `ppo` - `sft` | **+1.00 [+0.25, +1.75]** | 0.0120 | 4,321 |" in made
    assert {"en": "> Ship it.", "ko": "> 배포하세요."}[language] in made
    assert tables.MISSING[language] not in made


def case_study_report() -> dict:
    share = {"accuracy": 0.7, "low": 0.65, "high": 0.75, "num_pairs": 400}
    arm = {
        "reward": 0.5,
        "interval": [0.25, 0.75],
        "kl": 3.0,
        "eos": 0.99,
        "polite": 0.5,
        "rude": 0.0,
        "distinct2": None,
    }
    times = dict.fromkeys(("base", "filter_train", "filter_dev", "sft", "card", "answers_sft", "answers_ppo"), 60.0)
    return {
        "measured": "2030-01-02",
        "machine": {"cores": 2, "memory_bytes": 24 * 2**30, "bfloat16": True},
        "seconds": {**times, "arms": 3600.0},
        "part_seconds": {"reward": 1200.0, "judge": 600.0, "ppo": 1200.0, "judging": 300.0},
        "peak_bytes": {"sft": 3 * 2**30},
        "planned": {"sft": {"steps": 1234, "peak_bytes": 2 * 2**30, "largest_phase": "sampling"}},
        "card": {**share, "by_source": {"talk": share}, "longer_answer": share | {"accuracy": 0.6}, "ngrams": share},
        "arms": {"sft": arm, "ppo": arm},
        "comparisons": [{"of": "sft", "minus": "ppo", "mean": -0.5, "low": -0.75, "high": -0.25}],
        "votes": [{"of": "ppo", "minus": "sft", "mean": 0.125, "low": -0.25, "high": 0.5}],
        "reading": {"count": 30, "better": 14, "equal": 9, "worse": 7},
        "num_prompts": 100,
        "answers_per_prompt": 2,
        "answers": [{"prompt": "안녕?", "sft": "네 | 네", "ppo": "반가\n워요"}] * 6,
        "curves": {
            "sft": {"loss": [[1, 3.0], [2, 2.0]], "eval/loss": [[2, 2.5]]},
            **{name: {"reward_model/accuracy": [[1, 0.5], [9, 0.7]]} for name in ("reward", "judge")},
            "ppo": {"objective/reward": [[1, 0.0], [4, 1.0]], "objective/kl": [[1, 0.0], [4, 3.0]]},
        },
    }


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_tables_of_the_case_study_are_those_of_its_figures(language):
    tables = script(ROOT / "docs" / "figures" / "case_study_tables.py")
    page = tables.PAGES[language].read_text(encoding="utf-8")
    assert tables.rewritten(page, tables.recorded(), language) == page


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_case_study_is_told_with_what_it_missed(language):
    tables = script(ROOT / "docs" / "figures" / "case_study_tables.py")
    report = case_study_report()
    stages = tables.stages_table(report, language).splitlines()
    assert any(line.endswith("| 1,234 | 1.0 | 3.0 GiB | 2.0 GiB |") for line in stages)
    assert "| **67** |" in stages[-1]  # an hour of arms, and seven minutes
    assert "| 400 | 0.700 [0.650, 0.750] |" in tables.reward_table(report, language)
    policies = tables.policies_table(report, language)
    assert "| PPO | 0.50 [0.25, 0.75] | 3.00 | 99.0% | 50.0% | 0.0% | – |" in policies
    assert "**+0.50** [+0.25, +0.75]" in policies  # PPO minus SFT, whichever was compared with which
    assert "+0.12 [-0.25, +0.50]" in policies
    assert "네 \\| 네 | 반가 워요 |" in tables.answers_table(report, language)
    yes, no = tables.WORDS["yes"][language], tables.WORDS["no"][language]
    assert [line.split(" | ")[-1].strip(" |") for line in tables.aims_table(report, language).splitlines()[2:]] == [
        yes
    ] * 4
    report["card"]["low"] = 0.59
    report["arms"]["ppo"] = report["arms"]["ppo"] | {"eos": 0.97}
    missed = [line.split(" | ")[-1].strip(" |") for line in tables.aims_table(report, language).splitlines()[2:]]
    assert missed == [yes, no, yes, no]


def test_the_picture_of_a_case_study_has_a_curve_for_each_metric():
    picture = script(ROOT / "docs" / "images" / "make.py").case_study_picture(case_study_report(), "ko")
    assert picture.count("<polyline") == 6
    assert 'points="58.0,454.0 358.0,304.0"' in picture  # the reward, from its lowest to its highest


@pytest.mark.parametrize("page", [page for page in PAGES if not page.name.startswith("metrics.")], ids=shown)
def test_a_metric_that_a_page_names_exists(page):
    named = re.findall(rf"`((?:{'|'.join(GROUPS)})/[\w/]+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if metric_of(name) is None] == []


def test_the_pictures_are_those_of_the_figures():
    pictures = script(ROOT / "docs" / "images" / "make.py").drawn()
    assert {path.name for path in pictures} >= {"quickstart.svg", "quickstart.ko.svg"}
    for path, text in pictures.items():
        assert path.read_text(encoding="utf-8") == text


# The architecture page


@pytest.mark.parametrize("name", ["architecture.md", "architecture.ko.md", "decisions/014-dependency-facts.md"])
def test_every_path_that_is_named_exists(name):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:rlhf|scripts|tests|docs|configs)/[\w./-]*)`", text))
    assert len(paths) > 3
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


# Commands


def commands(text: str) -> Iterator[list[str]]:
    """Words of each command in a page's shell blocks: lines joined at backslashes, without comments and a final `&`."""
    for language, content in FENCE.findall(text):
        if language in SHELL and "<<" not in content:
            for line in content.replace("\\\n", " ").splitlines():
                for part in re.split(r" && ", line):
                    yield shlex.split(part.removesuffix(" &"), comments=True)


SHOWN = [words for page in PAGES for words in commands(page.read_text(encoding="utf-8")) if "..." not in words]


@pytest.mark.parametrize("words", [each[1:] for each in SHOWN if each[:1] == ["rlhf"]], ids=" ".join)
def test_every_command_that_is_shown_parses(words):
    build_parser().parse_args(words)


@pytest.mark.parametrize("words", [each[1:] for each in SHOWN if each[:1] == ["deepspeed"]], ids=" ".join)
def test_every_stage_that_is_shown_has_a_configuration(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    start = next(at for at, word in enumerate(words) if word.startswith("scripts/"))
    stage = STAGE_OF_SCRIPT[words[start].removeprefix("scripts/")]
    arguments = parse_stage_arguments(stage, words[start + 1 :])
    load_config(STAGES[stage].config, arguments.config_path, arguments.overrides)


def test_there_are_commands():
    assert len([words for words in SHOWN if words[:1] == ["rlhf"]]) > 40
    assert len([words for words in SHOWN if words[:1] == ["deepspeed"]]) > 10
