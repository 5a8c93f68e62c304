"""Agreement and majority by hand-computed values, and by Krippendorff's published example."""

from __future__ import annotations

import pytest

from rlhf.curate.label.agreement import alpha_of, label_report, ordinal_alpha, places, win_matrix
from rlhf.curate.label.draft import Judgement, Verdict
from rlhf.curate.label.export import majority_ranks, merged_row
from rlhf.curate.label.items import LabelItem
from rlhf.data.records import Message


def item(name: str = "안녕?", models: tuple[str, ...] = (), source: str = "", answers: int = 3) -> LabelItem:
    texts = tuple(f"{name} {number}번 답변" for number in range(answers))
    return LabelItem((Message("user", name),), texts, source, models=models)


def judged(who: str, *ranks: int, of: LabelItem | None = None, verdict: Verdict = "ranked", **rest) -> Judgement:
    return Judgement(of or item(answers=len(ranks)), who, verdict, ranks, **rest)


def test_alpha_by_hand():
    # Units (1,1) (2,2) (3,2). n1, n2, n3 = 2, 3, 1; the only unequal coincidence is o23 = 1.
    # Ordinal distances (sum of n from c to k, less half of both ends, squared):
    #   1-2: (5 - 2.5)^2 = 6.25    2-3: (4 - 2)^2 = 4    1-3: (6 - 1.5)^2 = 20.25
    # Observed 1*4 = 4; expected (2*3*6.25 + 2*1*20.25 + 3*1*4) / (6 - 1) = 90 / 5 = 18; alpha = 1 - 4/18.
    assert ordinal_alpha([[1, 2, 3], [1, 2, 2]]) == pytest.approx(14 / 18, abs=1e-9)


def test_alpha_of_the_published_example():
    # Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section E: ordinal alpha 0.815.
    no = None
    ratings = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, no, no, no],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, no, 3],
        [no, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, no],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, no],
    ]
    assert ordinal_alpha(ratings) == pytest.approx(0.815, abs=5e-4)


@pytest.mark.parametrize("ratings", [[[1, 2, 3]], [[1, None], [None, 2]], [[1, 1], [1, 1]], [[1, 1, 2], [1, 1, None]]])
def test_alpha_that_is_not_defined(ratings):
    assert ordinal_alpha(ratings) is None


def test_places_put_ties_in_the_middle():
    assert places((1, 2, 2, 4)) == (0, 0.5, 0.5, 1)
    assert places((1, 1, 1)) == (0.5, 0.5, 0.5)
    assert places((2, 1)) == (1, 0)


def test_alpha_of_rankings():
    # Reversed: units (0,1) (.5,.5) (1,0), each value twice. Distances 0-.5 and .5-1: (4-2)^2 = 4; 0-1: (6-2)^2 = 16.
    # Observed 2*16 = 32; expected (4*4 + 4*16 + 4*4) / 5 = 19.2; alpha = 1 - 32/19.2 = -2/3.
    assert alpha_of([judged("지수", 1, 2, 3), judged("민호", 3, 2, 1)]) == pytest.approx(-2 / 3)
    assert alpha_of([judged("지수", 1, 2, 3), judged("민호", 1, 2, 3)]) == pytest.approx(1)
    assert alpha_of([judged("지수", 1, 2, 3), judged("민호", 1, 1, 1, verdict="skip")]) is None
    assert alpha_of([]) is None


def test_report_by_person_and_source():
    travel, food = item("여행", source="여행"), item("음식", source="음식")
    found = label_report(
        [
            judged("지수", 1, 2, 3, of=travel),
            judged("민호", 1, 2, 3, of=travel, edit="더 나은 답변"),
            judged("하나", 3, 2, 1, of=travel),
            judged("지수", 1, 1, 1, of=food, verdict="bad"),
        ]
    )
    assert (found["rows"], found["shared_rows"], found["judgements"]) == (2, 1, 4)
    # With 민호 1, with 하나 -2/3.
    assert found["annotators"]["지수"]["alpha"] == pytest.approx((1 - 2 / 3) / 2)
    assert found["annotators"]["하나"]["alpha"] == pytest.approx(-2 / 3)
    assert found["annotators"]["지수"]["bad"] == 1
    assert found["annotators"]["민호"]["edited"] == 1
    assert found["sources"]["음식"] == {"judgements": 1, "shared_rows": 0, "alpha": None}
    assert found["sources"]["여행"]["shared_rows"] == 1


def test_wins_by_model():
    rows = item(models=("sft", "ppo", "sft"))
    matrix = win_matrix(
        [
            judged("지수", 2, 1, 3, of=rows),  # ppo beats both answers of sft
            judged("민호", 1, 1, 3, of=rows),  # a tie and a win of ppo
            judged("하나", 1, 2, 3, of=rows, verdict="skip"),
            judged("하나", 1, 2, 3),  # nobody knows whose answers these are
        ]
    )
    assert matrix == {
        "ppo": {"sft": {"wins": 3, "ties": 1, "losses": 0}},
        "sft": {"ppo": {"wins": 0, "ties": 1, "losses": 3}},
    }


@pytest.mark.parametrize(
    ("rankings", "merged"),
    [
        ([(2, 1, 3)], (2, 1, 3)),  # one person's ranking is kept
        ([(1, 2, 2, 4)], (1, 2, 2, 4)),
        ([(1, 2), (1, 2), (2, 1)], (1, 2)),
        ([(1, 2), (2, 1)], (1, 1)),
        ([(1, 2), (1, 1)], (1, 1)),  # as many say tie
        ([(1, 2), (1, 2), (1, 1)], (1, 2)),
        ([(1, 2), (1, 1), (1, 1)], (1, 1)),
        ([(1, 2, 3), (2, 3, 1), (3, 1, 2)], (1, 1, 1)),  # a circle
        # Pairs: 1 over 2 by 2:1, 1 over 3 by 2:1, 2 over 3 by 2:1.
        ([(1, 2, 3), (1, 2, 3), (3, 2, 1)], (1, 2, 3)),
        # 1 over 2 by 2:1, 1 and 3 split with a tie, 2 and 3 tie twice: standings +1, -1, 0.
        ([(1, 2, 2), (1, 2, 2), (2, 1, 1)], (1, 2, 2)),
    ],
)
def test_majority(rankings, merged):
    assert majority_ranks(rankings) == merged


def test_edits_are_the_best_answers_of_a_merged_row():
    rows = item(models=("sft", "ppo", "base"))
    merged = merged_row(
        [
            judged("지수", 2, 1, 3, of=rows, edit="제가 쓴 답변이에요.", edit_of=1, comment="길어요"),
            judged("민호", 2, 1, 3, of=rows, edit="이렇게 답하면 좋겠어요.", edit_of=0),
        ]
    )
    assert merged["responses"] == [*rows.responses, "제가 쓴 답변이에요.", "이렇게 답하면 좋겠어요."]
    assert merged["ranks"] == [4, 3, 5, 1, 1]
    assert merged["edited_from"] == [1, 0]
    assert merged["models"] == ["sft", "ppo", "base", "person", "person"]
    assert merged["comments"] == ["길어요"]
    assert merged["annotators"] == ["지수", "민호"]


def test_bad_by_majority():
    bad, ranked = judged("지수", 1, 1, verdict="bad"), judged("민호", 1, 2)
    assert merged_row([bad, bad, ranked])["all_bad"] is True
    assert merged_row([bad, bad, ranked])["ranks"] == [1, 1]
    assert "all_bad" not in merged_row([bad, ranked])
