"""The table of stored scores, by hand, and as files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.errors import DataError
from rlhf.evaluate.geval.table import WHOLE, geval_table, read_scores, score_row
from rlhf.html.templates import render

CRITERIA = ["친근함", "무해함"]


def row(prompt: str, scores: list[float], model: str = "sft", **more: Any) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "response": f"{model}의 답",
        "scores": scores,
        "criteria": CRITERIA,
        "model": model,
    } | more


ROWS = [
    row("가", [5, 3]),
    row("나", [3, 3]),
    row("가", [5, 5], "ppo"),
    row("나", [4, 4], "ppo"),
    row("다", [1, 1], "ppo"),
]


def table(rows: list[dict[str, Any]], against: str | None = None) -> dict[str, Any]:
    return geval_table([score_row(each) for each in rows], against)


def test_means_by_hand() -> None:
    """sft: (5 + 3) / 2, (3 + 3) / 2; ppo: (5 + 4 + 1) / 3 both. sft 3.5 stands above ppo 10/3."""
    part = table(ROWS)["parts"][0]
    first, second = part["models"]
    assert (first["model"], second["model"], part["against"]) == ("sft", "ppo", "sft")
    assert [first["criteria"][name]["mean"] for name in CRITERIA] == [4.0, 3.0]
    assert first["mean"]["mean"] == 3.5
    assert second["mean"]["mean"] == pytest.approx(10 / 3)
    assert (second["num_answers"], second["num_prompts"]) == (3, 3)


def test_differences_are_on_shared_prompts() -> None:
    """On 가 and 나: 5 - 4 and 4 - 3, so +1 throughout, though ppo's mean is the lower one. Differences of points 1 to 5
    lie in -4 to 4; Wilson's end for 0 of 2 prompts is u = 3.8415 / 5.8415, so 1 - 5 u to 1 + 3 u."""
    gap = table(ROWS)["parts"][0]["differences"][0]
    end = 3.84146 / 5.84146
    assert (gap["model"], gap["minus"], gap["num_prompts"], gap["mean"]) == ("ppo", "sft", 2, 1.0)
    assert (gap["low"], gap["high"]) == pytest.approx((1 - 5 * end, 1 + 3 * end), abs=1e-4)
    assert table(ROWS, "ppo")["parts"][0]["differences"][0]["mean"] == -1.0


def test_several_answers_to_a_prompt_are_one_unit() -> None:
    """Two answers to one prompt, 3 points on average: Wilson's end for 0 of 1 is u = 3.8415 / 4.8415, so 3 -+ 2 u."""
    line = table([row("가", [5, 5]), row("가", [1, 1])])["parts"][0]["models"][0]
    half = 2 * 3.84146 / 4.84146
    assert tuple(line["mean"].values()) == pytest.approx((3.0, 3 - half, 3 + half), abs=1e-4)


def test_a_source_is_a_set_and_a_model() -> None:
    plain = {**row("가", [1, 2]), "source": "eval/talk/final"}
    del plain["model"]
    found = score_row(plain)
    assert (found.set, found.model) == ("eval/talk", "final")
    parts = table([plain, {**plain, "source": "eval/hate/final"}, {**plain, "judge": "m"}])["parts"]
    assert [(part["set"], part["judge"]) for part in parts] == [
        ("eval/talk", ""),
        ("eval/hate", ""),
        ("eval/talk", "m"),
    ]


def test_agreement_of_judges() -> None:
    """The same points agree fully; opposite ones do worse than chance. An answer that one judge saw does not count."""
    one = [row(prompt, [points, points], judge="a") for prompt, points in zip("가나다라", (1, 2, 3, 4), strict=True)]
    same = [{**each, "judge": "b"} for each in one]
    opposite = [{**each, "judge": "b", "scores": [5 - each["scores"][0]] * 2} for each in one]
    lonely = row("마", [5, 5], judge="a")
    agreed = table([*one, *same, lonely])["agreement"]
    assert (agreed["num_answers"], agreed["alpha"]["친근함"], agreed["alpha"][WHOLE]) == (4, 1.0, 1.0)
    assert table([*one, *opposite])["agreement"]["alpha"][WHOLE] < 0
    assert "agreement" not in table(one)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scores": [1]}, "scores"),
        ({"scores": [1, "5"]}, "scores"),
        ({"scores": [1, float("nan")]}, "scores"),
        ({"criteria": []}, "criteria"),
        ({"prompt": ""}, "prompt"),
        ({"model": ""}, "model"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text("\n".join(json.dumps(each) for each in (ROWS[0], ROWS[1] | change)))
    with pytest.raises(DataError) as error:
        read_scores(str(file))
    assert f"{file}:2" in str(error.value)
    assert named in str(error.value)
    assert len(read_scores(str(file), "skip").rows) == 1


def test_the_command_writes_four_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "scores.jsonl", tmp_path / "table"
    file.write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in ROWS), encoding="utf-8")
    assert main(["evaluate", "judge", "--from-scores", str(file), "--out", str(out)]) == 0
    assert "3.50" in capsys.readouterr().out
    lines = list(csv.DictReader((out / "geval.csv").open(encoding="utf-8")))
    assert len(lines) == 6
    assert (lines[0]["model"], lines[0]["criterion"], lines[0]["mean"]) == ("sft", "친근함", "4.0000")
    assert "| sft | 4.00 [" in (out / "geval.md").read_text(encoding="utf-8")
    assert json.loads((out / "geval.json").read_text(encoding="utf-8"))["num_scores"] == 5
    page = (out / "geval.html").read_text(encoding="utf-8")
    assert "친근함" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_markdown_of_two_judges() -> None:
    """One prompt each: Wilson's end for 0 of 1 prompts is u = .79346; 5 - 4 u = 1.83, 3 -+ 2 u, 1 + 4 u = 4.17."""
    rows = [row("가", [5, 3], "a|b", judge=judge) for judge in ("x", "y")] + [row("가", [1, 1], "c", judge="x")]
    found = table(rows)
    text = render("evaluate/geval/table.md.j2", report=found, whole=WHOLE)
    assert text.startswith("# G-Eval\n\n3 scores. Means over answers,")
    assert "\n\n## Agreement of the judges\n\nKrippendorff's alpha of the judges on 1 answers: " in text
    assert (
        "\n\n## x\n\n| model | 친근함 | 무해함 | 평균 | prompts |\n|---|---:|---:|---:|---:|\n"
        "| a/b | 5.00 [1.83, 5.00] | 3.00 [1.41, 4.59] | **4.00 [1.62, 4.79]** | 1 |\n"
        "| c | 1.00 [1.00, 4.17] | 1.00 [1.00, 4.17] | **1.00 [1.00, 4.17]** | 1 |\n\n- c minus a|b: -3.000 ["
    ) in text
    assert text.endswith("| 1 |\n")


def test_names_are_escaped_on_the_page_alone() -> None:
    found = table([row("가", [5, 3], "<m>", judge=judge, set="<s>") for judge in ("<x>", "<y>")])
    page = render("evaluate/geval/page.html.j2", report=found, whole=WHOLE)
    assert "<h2>&lt;s&gt; · &lt;x&gt;</h2>" in page
    assert not any(name in page for name in ("<m>", "<s>", "<x>"))
    summary = render("evaluate/geval/summary.txt.j2", report=found, whole=WHOLE)
    assert summary.startswith("<s> · <x>: 친근함, 무해함\n  <m>  4.00 [")


def test_what_does_not_fit_together_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text(json.dumps(ROWS[0]))
    command = ["evaluate", "judge", "--out", str(tmp_path / "table")]
    assert main([*command, "--from-scores", str(file), "--judge", "http://127.0.0.1:1/v1=m"]) == 1
    assert "asks no model and no judge" in capsys.readouterr().err
    assert main([*command, "--from-scores", str(file), "--against", "gpt"]) == 1
    assert "no model 'gpt'" in capsys.readouterr().err
    assert main([*command, "--model", "a", "--prompts", "demo:rankings_dev"]) == 1
    assert "--judge" in capsys.readouterr().err
