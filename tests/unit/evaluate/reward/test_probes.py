"""Each probe's edit by hand, and which rows and answers a probe asks about."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf.data.encode import EncodedRanking, Encoder
from rlhf.data.records import Message, Ranking
from rlhf.evaluate.reward.probes import (
    CLOSING,
    edit_answers,
    edit_prompt,
    first_half,
    inputs_of,
    paraphrased,
    plain_prompt,
    probe_inputs,
    shuffled_sentences,
    swapped_words,
    trailing_space,
    twice,
    with_closing,
    without_eos,
)

EOS = 0


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("edit", "text", "expected"),
    [
        (trailing_space, "안녕?", "안녕? "),
        (first_half, "가나다라마", "가나다"),
        (first_half, "가 나 다", "가 나"),
        (first_half, "가", "가"),
        (twice, "네.", "네. 네."),
        (with_closing, "네.", "네. 도움이 되셨다면 좋겠습니다. 감사합니다!"),
        (paraphrased, "알려주세요!!", "알려주시겠어요"),
        (paraphrased, "뭐가 좋을까요?", "뭐가 좋을까"),
        (paraphrased, "어떻게 합니까?", "어떻게 하나요"),
        (paraphrased, "고마워.", "고마워"),
        (paraphrased, "?!", "?!"),
        (swapped_words, "비가 와요", "와요 비가"),
        (swapped_words, "비가\n와요", "와요\n비가"),
        (swapped_words, "안녕하세요", "안녕하세요"),
        (shuffled_sentences, "하나예요. 둘이에요.", "둘이에요. 하나예요."),
        (shuffled_sentences, "하나예요.", "하나예요."),
    ],
)
def test_edits_by_hand(edit, text, expected):
    assert edit(text, stream()) == expected


def test_swapped_words_keeps_the_words_and_follows_its_stream():
    text = "하나 둘 셋 넷 다섯 여섯 일곱 여덟"
    swapped = swapped_words(text, stream(1))
    assert swapped != text
    assert sorted(swapped.split()) == sorted(text.split())
    assert swapped == swapped_words(text, stream(1))
    assert len({swapped_words(text, stream(seed)) for seed in range(8)}) > 1


def test_shuffled_sentences_always_change_the_order():
    text = "하나. 둘. 셋."
    for seed in range(20):
        mixed = shuffled_sentences(text, stream(seed))
        assert mixed != text
        assert sorted(mixed.split()) == ["둘.", "셋.", "하나."]


def test_only_the_last_user_turn_or_the_answers_are_edited():
    turns = (Message("user", "안녕?"), Message("assistant", "네."), Message("user", "뭐 해?", input="지금"))
    ranking = Ranking(turns, ("좋아.", "싫어."), (1, 2), "가")
    asked = edit_prompt(ranking, trailing_space, stream())
    assert asked.prompt == (*turns[:2], Message("user", "뭐 해? ", input="지금"))
    assert asked.responses == ranking.responses
    answered = edit_answers(ranking, twice, stream())
    assert answered.responses == ("좋아. 좋아.", "싫어. 싫어.")
    assert (answered.prompt, answered.ranks, answered.source) == (turns, (1, 2), "가")


def test_without_eos():
    assert without_eos(np.array([5, 6, EOS]), EOS).tolist() == [5, 6]
    assert without_eos(np.array([5, 6]), EOS).tolist() == [5, 6]
    assert without_eos(np.array([EOS]), EOS).tolist() == [EOS]


def test_the_plain_prompt_is_text_alone_cut_on_the_left(chat_tokenizer):
    messages = (Message("user", "안녕하세요?"), Message("assistant", "네!"), Message("user", "뭐 해?", input="지금"))
    item = EncodedRanking(np.zeros(3, np.int32), (np.zeros(4, np.int32), np.zeros(2, np.int32)), (1, 2))
    ids = plain_prompt(messages, item, chat_tokenizer, 200)
    assert chat_tokenizer.text(ids.tolist()) == "안녕하세요?\n네!\n뭐 해?\n지금\n"
    assert plain_prompt(messages, item, chat_tokenizer, 7).tolist() == ids[-3:].tolist()  # 7 - 4
    assert plain_prompt(messages, item, chat_tokenizer, 2).tolist() == ids[-1:].tolist()


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def test_only_what_changed_is_scored():
    items = [
        EncodedRanking(ids(1), (ids(2), ids(3), ids(4)), (2, 1, 3)),
        EncodedRanking(ids(1), (ids(2), ids(3)), (1, 2)),
    ]
    edited = [
        EncodedRanking(ids(1), (ids(2), ids(9), ids(8)), (2, 1, 3)),
        EncodedRanking(ids(7), (ids(2), ids(5)), (1, 2)),
    ]
    answers = inputs_of("half", "answers", [4, 9], items, edited)
    assert (answers.rows, answers.answers) == ([4], [[1]])  # the worst answers are better than none: left out
    assert [[each.tolist() for each in tree[1]] for tree in answers.trees] == [[[9]]]
    prompts = inputs_of("space", "prompt", [4, 9], items, edited)
    assert (prompts.rows, prompts.answers) == ([9], [[0, 1]])
    assert prompts.trees[0][0].tolist() == [7]


def test_every_probe_is_set_and_rendered_as_in_training(chat_tokenizer):
    answers = ("네, 좋아요! 같이 가요.", "몰라.")
    ranking = Ranking((Message("user", "내일 산책 갈까요?"),), answers, (1, 2))
    encoded = Encoder(chat_tokenizer, 200).rankings([ranking])
    probes = {probe.name: probe for probe in probe_inputs([ranking], encoded, chat_tokenizer, 200)}
    assert set(probes) == {
        *("no_template", "trailing_space", "swapped_words", "paraphrase"),
        *("half", "twice", "closing", "shuffled", "empty", "no_eos"),
    }
    (closing,) = probes["closing"].trees
    rendered = chat_tokenizer.tokenizer.decode([*closing[0], *closing[1][0]])
    assert rendered.endswith(f"내일 산책 갈까요?\n\n### 응답:\n{answers[0]} {CLOSING}<|endoftext|>")
    assert probes["closing"].answers == [[0]]
    assert probes["empty"].trees[0][1][0].tolist() == [chat_tokenizer.eos_id]
    assert probes["no_eos"].trees[0][1][0].tolist() == encoded[0].answers[0][:-1].tolist()
    assert "갈까요? \n\n### 응답" in chat_tokenizer.tokenizer.decode(probes["trailing_space"].trees[0][0])
    assert len(probes["trailing_space"].trees[0][1]) == 2
