"""The demo's grammar: particles, held-out combinations, rankings in two dimensions, and the files made from it."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from random import Random

import pytest

from rlhf.data.embedded import data_path
from rlhf.data.korean import polite_sentences, split_sentences
from rlhf.demo.world.__main__ import written
from rlhf.demo.world.grammar import REGISTERS, World, filled, korean_world, with_particle
from rlhf.demo.world.rows import Question, questions, ranked
from rlhf.demo.world.rules import korean_rules


@pytest.mark.parametrize(
    ("word", "particle", "expected"),
    [
        ("김밥", "를", "김밥을"),
        ("피자", "를", "피자를"),
        ("라면", "가", "라면이"),
        ("카레", "가", "카레가"),
        ("등산", "는", "등산은"),
        ("유도", "는", "유도는"),
        ("우산", "와", "우산과"),
        ("모자", "와", "모자와"),
        ("부산", "로", "부산으로"),
        ("제주도", "로", "제주도로"),
        ("약혼반지", "나", "약혼반지나"),
        ("장갑", "나", "장갑이나"),
        ("수원", "라", "수원이라"),
        ("여수", "라", "여수라"),
        ("면접", "에서", "면접에서"),
        ("눈", "x", "눈"),
        ("서울", "로", "서울로"),  # after ㄹ as after a vowel
        ("서울", "를", "서울을"),
        ("비닐", "나", "비닐이나"),
    ],
)
def test_particles_follow_the_last_syllable(word: str, particle: str, expected: str) -> None:
    assert with_particle(word, particle) == expected


def test_a_template_may_name_its_thing_twice_and_go_on_after_the_particle() -> None:
    assert filled("{라}면 {x}, {로} 가요.", "하늘") == "하늘이라면 하늘, 하늘로 가요."


def test_a_word_of_another_script_has_no_particle() -> None:
    with pytest.raises(AssertionError, match="does not end in Hangul"):
        with_particle("PC", "를")


def test_things_are_single_words_of_one_kind() -> None:
    """One word, so that a tokenizer can make it one token; of one kind, so that its prompts are told apart."""
    kinds = {talk.kind: talk.things for talk in korean_world().talks}
    things = Counter(thing for each in kinds.values() for thing in each)
    assert len(things) > 400
    assert [thing for thing, count in things.items() if count > 1 or not thing.isalpha()] == []


def test_lines_speak_in_the_register_that_they_are_listed_under() -> None:
    """The rule that measures politeness, which knows nothing of the grammar, tells its registers apart."""
    world = korean_world()
    lines = {
        (register, filled(text, "김밥"))
        for register in REGISTERS
        for text in [*(text for talk in world.talks for text in talk.answers[register]), *world.frames(register)]
    }
    polite = {register for register in REGISTERS if register in ("warm", "polite")}
    wrong = [
        (register, text)
        for register, text in sorted(lines)
        if (polite_sentences(text)[0] > 0) != (register in polite) and text != "우와!"
    ]
    assert wrong == []
    texts = Counter(text for _, text in lines)
    assert [text for text, count in texts.items() if count > 1] == []  # an answer tells its register


def asked(*, held_out: bool) -> list[Question]:
    return questions(korean_world(), held_out=held_out)


def test_held_out_prompts_are_new_combinations_of_known_things_and_talks() -> None:
    train, dev = asked(held_out=False), asked(held_out=True)

    def pairs(found: list[Question]) -> set[tuple[str, tuple[str, ...]]]:
        return {(each.thing, each.talk.prompts) for each in found}

    assert pairs(train).isdisjoint(pairs(dev))
    assert {each.text for each in train}.isdisjoint(each.text for each in dev)
    for part in (0, 1):  # every held-out thing, and every held-out talk, is trained on elsewhere
        assert {each[part] for each in pairs(dev)} <= {each[part] for each in pairs(train)}
    assert 0.1 < len(dev) / (len(dev) + len(train)) < 0.15


def test_prompts_that_are_shown_are_held_out_and_have_an_english_gloss() -> None:
    shown = korean_world().shown
    assert len(shown) == 6
    assert {*shown} <= {each.text for each in asked(held_out=True)}
    assert all(gloss.isascii() and gloss for gloss in shown.values())
    first = [
        json.loads(line)["prompt"] for line in Path(data_path("demo:rankings_dev")).read_text("utf-8").split("\n")[:6]
    ]
    assert {*first} == {*shown}


def ordered(world: World) -> list[tuple[tuple[bool, str], tuple[bool, str]]]:
    """(to the question, register) of the better and of the worse answer of each untied pair, read off the texts."""
    rules = korean_rules()
    rows = ranked(world, asked(held_out=True), Random(3))
    found = []
    for row in rows:
        kinds = []
        for answer in row["responses"]:
            (register,) = rules.registers(answer)
            kinds.append((rules.answers(row["prompt"], answer), register))
        ranked_kinds = combinations(zip(row["ranks"], kinds, strict=True), 2)
        found += [(better, worse) for (rank, better), (lower, worse) in ranked_kinds if rank < lower]
    return found


def test_neither_the_register_nor_the_topic_alone_tells_the_rank() -> None:
    pairs = Counter(ordered(korean_world()))
    # topic: among answers of one register that to the question wins, whatever the register
    for register in ("warm", "polite", "rude"):
        assert ((True, register), (False, register)) in pairs
        assert ((False, register), (True, register)) not in pairs
    # register: among answers to the question the kinder wins
    assert ((True, "warm"), (True, "rude")) in pairs
    assert ((True, "rude"), (True, "warm")) not in pairs
    # a rude answer to the question and a kind one beside it stand in no order
    assert not {((True, "rude"), (False, kind)) for kind in ("warm", "polite")} & pairs.keys()
    assert not {((False, kind), (True, "rude")) for kind in ("warm", "polite")} & pairs.keys()
    # a casual answer to the question beats a polite one beside it, so that an answer's text does not tell its rank
    casual_first = pairs[(True, "casual"), (False, "polite")] + pairs[(True, "casual"), (False, "warm")]
    casual_last = pairs[(True, "polite"), (True, "casual")] + pairs[(True, "warm"), (True, "casual")]
    assert 0.6 < casual_first / casual_last < 1.6


def test_the_shipped_files_are_what_the_grammar_writes() -> None:
    for name, text in written().items():
        shipped = Path(data_path("demo:" + name.removesuffix(".jsonl"))).read_text(encoding="utf-8")
        assert text == shipped, f"{name}: run python -m rlhf.demo.world"


def test_every_sentence_of_an_answer_has_an_end() -> None:
    for register in REGISTERS:
        assert all(text[-1] in ".!?" for text in korean_world().frames(register))
    for talk in korean_world().talks:
        assert all(text[-1] in ".!?" and len(split_sentences(text)) == 1 for text in talk.templates)
