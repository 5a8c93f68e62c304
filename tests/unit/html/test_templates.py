"""Templates: which are shipped, what they escape, and the parts that pages are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jinja2 import meta
from jinja2.exceptions import UndefinedError
from setuptools import Distribution

import rlhf
from rlhf.html.differences import marked_difference
from rlhf.html.intervals import place_interval
from rlhf.html.templates import environment, number, percent
from rlhf.html.words import Words, joined, same

PACKAGE = Path(rlhf.__file__).parent
SHIPPED = {
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*")
    if path.is_file() and path.suffix not in (".py", ".pyc")
}
SHIPPED |= {  # behind links, which rglob does not follow
    path.relative_to(PACKAGE).as_posix()
    for pattern in ("recipes/*/*.yaml", "scripts/*.py", "scripts/slurm/*")
    for path in PACKAGE.glob(pattern)
}
TEMPLATES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.j2"))
PARTS = '{% import "html/parts.html.j2" as parts %}'


def rendered(source: str, **values: Any) -> str:
    return environment().from_string(PARTS + source).render(values)


def test_the_package_ships_every_template_and_every_other_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """By setuptools itself, from pyproject.toml."""
    assert "html/page.html.j2" in TEMPLATES
    monkeypatch.chdir(PACKAGE.parent)
    distribution = Distribution()
    distribution.parse_config_files(["pyproject.toml"])
    command = distribution.get_command_obj("build_py")
    command.ensure_finalized()
    command.manifest_files = {}  # those of a source archive, which would be written to be read
    shipped = {
        Path(file).relative_to(PACKAGE.name).as_posix()
        for package in command.packages
        for file in command.find_data_files(package, package.replace(".", "/"))
    }
    assert set(TEMPLATES) < SHIPPED == shipped


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_parses_and_finds_those_it_uses(name: str) -> None:
    environment().get_template(name)
    source = (PACKAGE / name).read_text(encoding="utf-8")
    for used in meta.find_referenced_templates(environment().parse(source)):
        assert used is None or used in TEMPLATES  # None: named by a variable


def test_text_is_escaped_in_pages_and_left_alone_in_markdown() -> None:
    assert rendered("{{ text }}", text="<b>") == "&lt;b&gt;"
    assert environment().autoescape("runs/report.html.j2") is True  # type: ignore[operator]
    assert environment().autoescape("artifacts/README.md.j2") is False  # type: ignore[operator]


def test_a_name_that_was_not_passed_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        rendered("{{ missing }}")


@pytest.mark.parametrize(
    ("value", "spec", "expected"),
    [
        (1234, ",", "1,234"),
        (0.12345, ".3f", "0.123"),
        (1.5, "+.2f", "+1.50"),
        (-0.001, "+.2f", "+0.00"),
        (-0.001, ".0%", "0%"),
        (12345.678, ",.0f", "12,346"),
        (0.5, lambda value: f"{value * 100:.0f} points", "50 points"),
    ],
)
def test_numbers(value: float, spec: Any, expected: str) -> None:
    assert number(value, spec) == expected


def test_shares_and_intervals() -> None:
    assert (percent(0.7564), percent(0.7564, 0)) == ("75.6%", "76%")
    assert rendered("{{ f | interval('.2f') }}", f={"low": 0.6, "high": 0.9}) == "0.60 – 0.90"


def test_words_are_written_in_both_languages_or_once() -> None:
    assert rendered("{{ words('<가>', 'b') }}") == '<span lang="ko">&lt;가&gt;</span><span lang="en">b</span>'
    assert rendered("{{ text }}", text=same("<a>")) == "&lt;a&gt;"
    inner = Words("둘", "two")
    assert Words("{0} {n:,}", "{n:,} {0}").format(inner, n=1000) == ("둘 1,000", "1,000 two")
    assert joined([Words("가", "a"), Words("", ""), inner]) == ("가 둘", "a two")


def test_a_page_of_one_language_has_no_switch_and_one_of_two_has() -> None:
    body = '{% block title %}<T>{% endblock %}{% block main %}{{ words("가", "a") }}{% endblock %}'
    one = environment().from_string('{% extends "html/page.html.j2" %}' + body).render()
    both = environment().from_string('{% extends "html/bilingual.html.j2" %}' + body).render()
    assert one.startswith('<!doctype html>\n<html lang="en">')
    assert '<body class="english">' in one
    assert "한국어" not in one
    assert '<html lang="ko">' in both
    assert both.index('id="in-english"') < both.index("<main>")
    assert not any(word in both for word in ("src=", "<link", "@import", "url("))
    assert both.count("<script") == 1  # the language of the browser
    assert "<script" not in one


def test_a_section_without_a_body_is_left_out() -> None:
    section = "{% call parts.section(title, 'here') %}{{ body }}{% endcall %}"
    assert rendered(section, title="T<", body="  \n").strip() == ""
    assert '<h2 id="here">T&lt;</h2>' in rendered(section, title="T<", body="text")


def test_a_table_of_cells_and_one_whose_rows_are_written_by_the_caller() -> None:
    plain = rendered("{{ parts.table(['', none], [['<b>', '1']]) }}")
    assert '<th></th><th class="draw"></th>' in plain
    assert '<td>&lt;b&gt;</td><td class="draw">1</td>' in plain
    assert '<table class="text"><tr>' in rendered("{{ parts.table([''], [], 'text') }}")
    called = rendered("{% call(row) parts.table(['n'], [1, 2]) %}<td>{{ row * 2 }}</td>{% endcall %}")
    assert "<tr><td>2</td></tr>\n<tr><td>4</td></tr>" in called


def test_figures() -> None:
    value = {"mean": 0.75, "low": 0.6, "high": 0.9}
    assert rendered("{{ parts.figure(f, '.1%') }}", f=value) == "75.0% <small>[60.0%, 90.0%]</small>"
    assert rendered("{{ parts.difference(f) }}", f=value).startswith("<b>+0.750")
    assert rendered("{{ parts.difference(f) }}", f=value | {"low": -0.1}).startswith("+0.750")
    alone = value | {"low": float("nan"), "high": float("nan")}
    assert rendered("{{ parts.difference(f) }}", f=alone).strip() == "+0.750"


def test_an_interval_is_placed_and_coloured_by_the_side_it_lies_on() -> None:
    """The axis runs from 4 to 116: 0.25 of it is 4 + 112 / 4 = 32; what is outside stands at an edge."""
    found = place_interval({"mean": 0.5, "low": 0.25, "high": 2.0}, 0.0, 1.0, 0.75)
    assert found == (32.0, 60.0, 116.0, 88.0, "#5a6473")
    above, below = ({"mean": m, "low": m - 1, "high": m + 1} for m in (3.0, -3.0))
    assert [place_interval(each, -5, 5, 0.0).colour for each in (above, below)] == ["#23735a", "#b3541e"]  # type: ignore[union-attr]
    nothing = {"mean": float("nan"), "low": float("nan"), "high": float("nan")}
    assert place_interval(nothing, 0, 1) is None
    assert rendered("{{ parts.drawn(f, 0, 1) }}", f=nothing) == ""
    alone = place_interval({"mean": 1.0, "low": float("nan"), "high": float("nan")}, 1.0, 1.0)
    assert alone == (60.0, 60.0, 60.0, None, "#5a6473")
    drawn = rendered("{{ parts.drawn(f, -5, 5, 0.0) }}", f=above)
    assert drawn.startswith('<svg viewBox="0 0 120 16" role="img" aria-label="3">')
    assert 'x1="82.4" x2="104.8" y1="8" y2="8" stroke="#23735a"' in drawn  # 2 and 4 are at 0.7 and 0.9


def test_words_that_differ_are_marked_and_text_is_escaped() -> None:
    assert marked_difference("오늘은 <비가> 온다", "오늘은 눈이 온다") == "오늘은 <mark>&lt;비가&gt;</mark> 온다"
    assert marked_difference("전혀 다른 말", "하나도 같지 않은 글") == "전혀 다른 말"  # all of it would be marked
    assert marked_difference("<b>", "<b>") == "&lt;b&gt;"


def test_an_answer_in_its_box() -> None:
    box = rendered("{{ parts.answer('<n>', '<t> 네 네', other='<t> 네 아', tags=[('<g>', 'bad')], kind='won') }}")
    assert box.startswith('<div class="said won"><h4>&lt;n&gt;<span class="tag bad">&lt;g&gt;</span></h4>')
    assert "<div>&lt;t&gt; 네 <mark>네</mark></div></div>" in box
    assert "(empty)" in rendered("{{ parts.answer('n', '') }}")
    around = rendered("{% call parts.pair('<q>', 'from <s>') %}boxes{% endcall %}")
    assert '<small>from &lt;s&gt;</small><p class="asked">&lt;q&gt;</p>' in around
    assert '<div class="answers">boxes</div>' in around


def test_a_verdict_and_a_fold() -> None:
    assert '<p class="verdict good">x</p>' in rendered("{% call parts.verdict(true) %} x {% endcall %}")
    assert '<p class="verdict">x</p>' in rendered("{% call parts.verdict(false) %}x{% endcall %}")
    fold = rendered("{% call parts.folded('<t>') %}x{% endcall %}")
    assert "<details><summary>&lt;t&gt;</summary>" in fold
