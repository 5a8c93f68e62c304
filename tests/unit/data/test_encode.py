"""Records to ids: what is learnt, what a prompt is, what is cut. Texts are written out by hand."""

from __future__ import annotations

import random
from dataclasses import asdict

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rlhf.data.encode import Encoder
from rlhf.data.packing import pack_sequences
from rlhf.data.records import Demonstration, Message, Prompt, Ranking
from rlhf.data.templates import PRESETS
from rlhf.data.tokenizer import ChatTokenizer, audited, load_tokenizer
from rlhf.errors import DataError

EOS = "<|endoftext|>"
HEADER = "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
LONG = 4096


def user(text: str, context: str = "") -> Message:
    return Message("user", text, context)


def bot(text: str) -> Message:
    return Message("assistant", text)


def demonstration(*turns: str) -> Demonstration:
    return Demonstration(tuple((bot if n % 2 else user)(text) for n, text in enumerate(turns)))


def plain_ids(chat: ChatTokenizer, *texts: str) -> list[int]:
    """Ids by the Hugging Face tokenizer itself, each text apart."""
    return [i for text in texts for i in chat.tokenizer(text, add_special_tokens=False)["input_ids"]]


def decoded(chat: ChatTokenizer, ids: np.ndarray) -> str:
    return chat.tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)


@pytest.fixture(scope="module")
def chats(tiny_tokenizer_dir) -> dict[str, ChatTokenizer]:
    return {name: load_tokenizer(str(tiny_tokenizer_dir), name) for name in PRESETS}


@pytest.fixture(scope="module")
def greedy_merger() -> ChatTokenizer:
    """A tokenizer that merges across every border it is given: no split before spaces, digits or newlines."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[EOS, "<|padding|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(["### 응답:\n네", "### 응답:\n네, 그래요"] * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOS, pad_token="<|padding|>")
    return audited(fast, "kullm", where="test")


def test_mask_covers_the_answer_and_eos_alone(chat_tokenizer):
    (row,) = Encoder(chat_tokenizer, LONG).demonstrations([demonstration("점심 뭐 먹지?", "김밥은 어떠세요? 뷁")])
    assert decoded(chat_tokenizer, row.ids[~row.answer_mask]) == HEADER + "### 명령어:\n점심 뭐 먹지?\n\n### 응답:\n"
    assert decoded(chat_tokenizer, row.ids[row.answer_mask]) == "김밥은 어떠세요? 뷁" + EOS
    start = int(np.flatnonzero(row.answer_mask)[0])
    assert row.answer_mask[start:].all()  # one run, up to the end
    assert row.ids[-1] == 0  # EOS is token 0 of this vocabulary
    assert (row.ids == 0).sum() == 1


def test_every_answer_of_a_conversation_is_learnt(chat_tokenizer):
    turns = ("안녕?", "네, 안녕하세요!", "비 와?", "우산 챙기세요 🌂", "고마워", "별말씀을요.")
    (row,) = Encoder(chat_tokenizer, LONG).demonstrations([demonstration(*turns)])
    runs = np.split(np.arange(len(row)), np.flatnonzero(np.diff(row.answer_mask.astype(int))) + 1)
    texts = [(bool(row.answer_mask[run[0]]), decoded(chat_tokenizer, row.ids[run])) for run in runs]
    assert texts == [
        (False, HEADER + "### 명령어:\n안녕?\n\n### 응답:\n"),
        (True, "네, 안녕하세요!" + EOS),
        (False, "\n\n### 명령어:\n비 와?\n\n### 응답:\n"),
        (True, "우산 챙기세요 🌂" + EOS),
        (False, "\n\n### 명령어:\n고마워\n\n### 응답:\n"),
        (True, "별말씀을요." + EOS),
    ]


def weighted(turns: tuple[str, ...], *unlearnt: int) -> Demonstration:
    """The conversation, with answers of these numbers from 0 of weight 0."""
    messages = list(demonstration(*turns).messages)
    for number in unlearnt:
        messages[2 * number + 1] = Message("assistant", turns[2 * number + 1], learn=False)
    return Demonstration(tuple(messages))


def test_an_answer_of_weight_0_is_read_and_not_learnt(chat_tokenizer):
    turns = ("안녕?", "왜.", "비 와?", "우산 챙기세요.", "고마워", "그래.")
    (whole,) = Encoder(chat_tokenizer, LONG).demonstrations([demonstration(*turns)])
    (row,) = Encoder(chat_tokenizer, LONG).demonstrations([weighted(turns, 0, 2)])
    assert row.ids.tolist() == whole.ids.tolist()
    assert decoded(chat_tokenizer, row.ids[row.answer_mask]) == "우산 챙기세요." + EOS
    assert decoded(chat_tokenizer, row.ids[row.unlearnt]) == "왜." + EOS + "그래." + EOS
    assert whole.unlearnt is None
    weights = pack_sequences([row], prompt_weight=0.5)
    assert weights.weights.tolist() == [
        1.0 if learnt else 0.5
        for learnt, off in zip(row.answer_mask[1:], row.unlearnt[1:], strict=True)
        if not off  # the first token has no loss either
    ]


def test_weights_stay_with_their_answers_when_old_turns_go(chat_tokenizer):
    turns = ("안녕?", "왜.", "비 와?", "우산 챙기세요.", "고마워", "별말씀을요.")
    (q2, a2), (q3, a3) = piece("비 와?", "우산 챙기세요."), piece("고마워", "별말씀을요.")
    limit = len(plain_ids(chat_tokenizer, HEADER + q2, a2, "\n\n" + q3, a3))
    (row,) = Encoder(chat_tokenizer, limit).demonstrations([weighted(turns, 1)])
    assert decoded(chat_tokenizer, row.ids[row.answer_mask]) == "별말씀을요." + EOS
    (row,) = Encoder(chat_tokenizer, limit).demonstrations([weighted(turns, 2)])
    assert decoded(chat_tokenizer, row.ids[row.answer_mask]) == "우산 챙기세요." + EOS
    with pytest.raises(DataError, match="only answers of weight 0 are left"):
        Encoder(chat_tokenizer, limit).demonstrations([weighted(turns, 1, 2)])
    with pytest.raises(DataError, match="the last answer has weight 0"):
        Encoder(chat_tokenizer, LONG, train_on="last").demonstrations([weighted(turns, 2)])


def test_source_and_counts_are_kept(chat_tokenizer):
    encoder = Encoder(chat_tokenizer, LONG)
    record = Demonstration((user("안녕?"), bot("네!")), source="chat")
    (row,) = encoder.demonstrations([record])
    assert row.source == "chat"
    answer = plain_ids(chat_tokenizer, "네!" + EOS)
    prompt = plain_ids(chat_tokenizer, HEADER + "### 명령어:\n안녕?\n\n### 응답:\n")
    assert asdict(encoder.report) == {
        "num_rows": 1,
        "num_tokens": len(prompt) + len(answer),
        "num_answer_tokens": len(answer),
        "rows_with_dropped_turns": 0,
        "rows_with_cut_prompt": 0,
        "rows_with_cut_answer": 0,
        "special_texts_removed": 0,
    }


RARE = "뷁쉙꿹췕갉넋햏뛟쀍휋"
EMOJI = ("😀", "👨‍👩‍👧", "🇰🇷", "❤️", "🌂")


def random_korean(rng: random.Random) -> str:
    """Text that starts and ends with anything: rare syllables, emoji, jamo, spaces, newlines, digits, marks."""
    middle = "".join(
        rng.choice((chr(rng.randrange(0xAC00, 0xD7A4)), rng.choice(RARE), " ", "\n", "요", "3", "ㅋ", "."))
        for _ in range(rng.randrange(0, 12))
    )
    edges = (*RARE, *EMOJI, "안", " 네", "\n\n네", "  \n뭐", "7", ":", "ㅠ", "\t네")
    return rng.choice(edges) + middle + rng.choice((*edges, "\n", " ", "네\n\n"))


@pytest.mark.parametrize("template", [*PRESETS, "greedy_merger"])
def test_prompt_ids_are_a_prefix_of_the_demonstration(template, chats, greedy_merger):
    chat = greedy_merger if template == "greedy_merger" else chats[template]
    encoder, rng = Encoder(chat, LONG), random.Random(11)
    for number in range(150):
        turns = [random_korean(rng) for _ in range(2 * rng.choice((1, 1, 2, 3)))]
        record = demonstration(*turns)
        (row,) = encoder.demonstrations([record])
        (ranking,) = encoder.rankings([Ranking(record.messages[:-1], (turns[-1], "아니요"), (1, 2))])
        for end in range(1, len(turns), 2):  # the prompt before each answer of the conversation
            (prompt,) = encoder.prompts([Prompt(record.messages[:end])])
            assert row.ids[: len(prompt)].tolist() == prompt.ids.tolist(), (number, turns)
            assert not row.answer_mask[len(prompt) - 1]
            assert row.answer_mask[len(prompt)]
        whole = np.concatenate([ranking.prompt, ranking.answers[0]])
        assert whole.tolist() == row.ids.tolist()
        assert prompt.ids.tolist() == ranking.prompt.tolist()
        runs = np.split(row.ids[row.answer_mask], np.flatnonzero(row.ids[row.answer_mask] == chat.eos_id) + 1)
        assert [decoded(chat, run) for run in runs[:-1]] == [text + EOS for text in turns[1::2]]
        assert len(runs[-1]) == 0


def test_prompt_keeps_its_row_text_and_reference(chat_tokenizer):
    record = Prompt((user("안녕?"), bot("네!"), user("비 와?")), source="chat", reference="네, 와요.")
    first, second = Encoder(chat_tokenizer, LONG).prompts([record, record])
    assert (first.row, second.row) == (0, 1)
    assert (first.text, first.source, first.reference) == ("비 와?", "chat", "네, 와요.")


def test_what_a_template_writes_after_the_last_answer_is_left_out(tiny_tokenizer_dir, tmp_path):
    closing = "{% if not add_generation_prompt %}{{ '\\n(끝)' }}{% endif %}"
    (tmp_path / "closing.jinja").write_text(PRESETS["polyglot-chat"] + closing, encoding="utf-8")
    chat = load_tokenizer(str(tiny_tokenizer_dir), str(tmp_path / "closing.jinja"))
    assert chat.pieces(demonstration("안녕?", "네!").messages)[-1].text == "\n(끝)"
    expected = plain_ids(chat, "### 사용자:\n안녕?\n\n### 챗봇:\n", "네!" + EOS)
    encoder = Encoder(chat, LONG)
    assert encoder.demonstrations([demonstration("안녕?", "네!")])[0].ids.tolist() == expected
    (row,) = encoder.rankings([Ranking((user("안녕?"),), ("네!", "아니요"), (1, 2))])
    assert [*row.prompt, *row.answers[0]] == expected


# Over-length rows


def piece(question: str, answer: str) -> tuple[str, str]:
    return f"### 명령어:\n{question}\n\n### 응답:\n", answer + EOS


def test_oldest_turns_go_first(chat_tokenizer):
    record = demonstration("하나?", "첫째.", "둘?", "둘째.", "셋?", "셋째.")
    (q2, a2), (q3, a3) = piece("둘?", "둘째."), piece("셋?", "셋째.")
    two = plain_ids(chat_tokenizer, HEADER + q2, a2, "\n\n" + q3, a3)
    one = plain_ids(chat_tokenizer, HEADER + q3, a3)
    for limit, expected in ((len(two), two), (len(two) - 1, one), (len(one), one)):
        encoder = Encoder(chat_tokenizer, limit)
        (row,) = encoder.demonstrations([record])
        assert row.ids.tolist() == expected
        assert encoder.report.rows_with_dropped_turns == 1  # rows, not turns
        assert encoder.report.rows_with_cut_prompt == encoder.report.rows_with_cut_answer == 0


def test_the_system_turn_stays_when_turns_are_dropped(chat_tokenizer):
    system = Message("system", "친절하게 답한다.")
    record = Demonstration((system, *demonstration("하나?", "첫째.", "둘?", "둘째.").messages))
    question, answer = piece("둘?", "둘째.")
    expected = plain_ids(chat_tokenizer, HEADER + "친절하게 답한다.\n\n" + question, answer)
    (row,) = Encoder(chat_tokenizer, len(expected)).demonstrations([record])
    assert row.ids.tolist() == expected


def test_then_the_left_of_the_prompt_goes(chat_tokenizer):
    question, answer = piece("셋?", "셋째 뷁.")
    whole = plain_ids(chat_tokenizer, HEADER + question, answer)
    encoder = Encoder(chat_tokenizer, len(whole) - 3)
    (row,) = encoder.demonstrations([demonstration("둘?", "둘째.", "셋?", "셋째 뷁.")])
    assert row.ids.tolist() == whole[3:]
    assert decoded(chat_tokenizer, row.ids[row.answer_mask]) == "셋째 뷁." + EOS
    report = encoder.report
    counts = (report.rows_with_dropped_turns, report.rows_with_cut_prompt, report.rows_with_cut_answer)
    assert counts == (1, 1, 0)
    assert report.num_tokens == len(whole) - 3


def test_a_row_that_just_fits_is_not_cut(chat_tokenizer):
    question, answer = piece("셋?", "셋째.")
    whole = plain_ids(chat_tokenizer, HEADER + question, answer)
    encoder = Encoder(chat_tokenizer, len(whole))
    (row,) = encoder.demonstrations([demonstration("셋?", "셋째.")])
    assert row.ids.tolist() == whole
    assert encoder.report.rows_with_cut_prompt == 0


def test_last_the_right_of_the_answer_goes_without_a_false_eos(chat_tokenizer):
    text = "가나다라마바사" * 20
    question, answer = piece("뭐?", text)
    prompt_ids, answer_ids = plain_ids(chat_tokenizer, HEADER + question), plain_ids(chat_tokenizer, answer)
    assert len(prompt_ids) > 20
    assert len(answer_ids) > 80
    encoder = Encoder(chat_tokenizer, 80)
    (row,) = encoder.demonstrations([demonstration("뭐?", text)])
    assert row.ids.tolist() == prompt_ids[-20:] + answer_ids[:60]  # a quarter of 80 is left to the prompt
    assert row.answer_mask.tolist() == [False] * 20 + [True] * 60
    assert 0 not in row.ids
    assert encoder.report.rows_with_cut_answer == 1
    assert encoder.report.rows_with_cut_prompt == 1  # both were cut, both are counted
    assert encoder.report.num_answer_tokens == 60


def test_a_short_prompt_stays_whole_when_the_answer_is_cut(chats):
    chat = chats["polyglot-chat"]
    prompt_ids = plain_ids(chat, "### 사용자:\n뭐?\n\n### 챗봇:\n")
    answer_ids = plain_ids(chat, "뷁" * 300 + EOS)
    assert len(prompt_ids) < 50
    encoder = Encoder(chat, 200)
    (row,) = encoder.demonstrations([demonstration("뭐?", "뷁" * 300)])
    assert row.ids.tolist() == prompt_ids + answer_ids[: 200 - len(prompt_ids)]
    assert (encoder.report.rows_with_cut_prompt, encoder.report.rows_with_cut_answer) == (0, 1)


def test_an_earlier_answer_in_the_cut_prompt_keeps_its_mask(chats):
    # the system text is 300 tokens long and never dropped, so the left of the prompt is cut into it
    chat = chats["polyglot-chat"]
    system = Message("system", "뷁" * 100)
    question, answer = "\n\n### 사용자:\n둘?\n\n### 챗봇:\n", "둘째." + EOS
    record = Demonstration((system, user("둘?"), bot("둘째.")))
    whole = plain_ids(chat, "뷁" * 100 + question, answer)
    (row,) = Encoder(chat, 60).demonstrations([record])
    assert row.ids.tolist() == whole[-60:]
    assert decoded(chat, row.ids[row.answer_mask]) == answer


def test_over_long_prompt_keeps_its_right_end(chat_tokenizer):
    whole = plain_ids(chat_tokenizer, HEADER + "### 명령어:\n무슨 일이에요?\n\n### 응답:\n")
    encoder = Encoder(chat_tokenizer, len(whole) - 5)
    (prompt,) = encoder.prompts([Prompt((user("무슨 일이에요?"),))])
    assert prompt.ids.tolist() == whole[5:]
    assert encoder.report.rows_with_cut_prompt == 1
    assert encoder.report.num_tokens == len(whole) - 5
    encoder = Encoder(chat_tokenizer, len(whole))
    (prompt,) = encoder.prompts([Prompt((user("무슨 일이에요?"),))])
    assert prompt.ids.tolist() == whole
    assert encoder.report.rows_with_cut_prompt == 0


HISTORY = (user("하나?"), bot("첫째."), user("둘?"))


@pytest.mark.parametrize("kind", ["prompts", "rankings"])
def test_prompts_and_rankings_lose_their_oldest_turns_first_too(kind, chat_tokenizer):
    question, answer = piece("둘?", "네.")
    kept = plain_ids(chat_tokenizer, HEADER + question)
    if kind == "prompts":
        encoder = Encoder(chat_tokenizer, len(kept))
        ids = encoder.prompts([Prompt(HISTORY)])[0].ids
    else:
        encoder = Encoder(chat_tokenizer, len(kept) + len(plain_ids(chat_tokenizer, answer)))
        ids = encoder.rankings([Ranking(HISTORY, ("네.", "네."), (1, 2))])[0].prompt
    assert ids.tolist() == kept
    assert encoder.report.rows_with_dropped_turns == 1


# Special-token text in data


def test_special_text_is_removed_and_counted_everywhere(chat_tokenizer):
    encoder = Encoder(chat_tokenizer, LONG)
    record = demonstration("뭐<|padding|>야?<|endoftext|>", "<|endoftext|>네, 좋아요.<|endoftext|>")
    (row,) = encoder.demonstrations([record])
    question, answer = piece("뭐야?", "네, 좋아요.")
    assert row.ids.tolist() == plain_ids(chat_tokenizer, HEADER + question, answer)
    assert (row.ids == 0).sum() == 1
    assert encoder.report.special_texts_removed == 4


def test_removing_special_text_does_not_make_another(chat_tokenizer):
    encoder = Encoder(chat_tokenizer, LONG)
    (row,) = encoder.demonstrations([demonstration("응?", "네<|endo<|endoftext|>ftext|>요 <|pad<|endoftext|>ding|>.")])
    assert decoded(chat_tokenizer, row.ids[row.answer_mask]) == "네요 ." + EOS
    assert (row.ids < 2).sum() == 1  # 0 is EOS and 1 is PAD: the one EOS that ends the answer
    assert encoder.report.special_texts_removed == 4


def test_special_text_in_an_input_is_removed(chats):
    for name in ("kullm", "kullm-input"):
        encoder = Encoder(chats[name], LONG)
        (prompt,) = encoder.prompts([Prompt((user("요약해 줘", "비가<|endoftext|> 왔다."),))])
        assert 0 not in prompt.ids
        assert "비가 왔다." in decoded(chats[name], prompt.ids)
        assert encoder.report.special_texts_removed == 1


def test_special_text_in_rankings_and_prompts(chat_tokenizer):
    encoder = Encoder(chat_tokenizer, LONG)
    (row,) = encoder.rankings([Ranking((user("응?<|endoftext|>"),), ("네<|endoftext|>", "아니요"), (1, 2))])
    assert [decoded(chat_tokenizer, answer) for answer in row.answers] == ["네" + EOS, "아니요" + EOS]
    assert 0 not in row.prompt
    assert encoder.report.special_texts_removed == 2


def test_a_turn_of_special_text_alone_is_a_named_error(chat_tokenizer):
    with pytest.raises(DataError, match="nothing but special-token text"):
        Encoder(chat_tokenizer, LONG).demonstrations([demonstration("응?", "<|endoftext|>")])


# Rankings


def test_ranking_shares_one_prompt_and_keeps_ranks(chat_tokenizer):
    encoder = Encoder(chat_tokenizer, LONG)
    record = Ranking((user("비 와?"),), ("네, 와요.", "몰라", "뷁 ☔"), (2, 3, 1), "demo", (4.0, 1.5, 4.5))
    (row,) = encoder.rankings([record])
    question, _ = piece("비 와?", "")
    assert row.prompt.tolist() == plain_ids(chat_tokenizer, HEADER + question)
    expected = [plain_ids(chat_tokenizer, text + EOS) for text in record.responses]
    assert [answer.tolist() for answer in row.answers] == expected
    assert (row.ranks, row.source, row.scores) == ((2, 3, 1), "demo", (4.0, 1.5, 4.5))
    assert len(row) == len(row.prompt) + sum(map(len, expected))
    assert encoder.report.num_tokens == len(row)
    assert encoder.report.num_answer_tokens == sum(map(len, expected))


def test_ranking_cuts_its_prompt_for_the_longest_answer(chat_tokenizer):
    prompt = plain_ids(chat_tokenizer, HEADER + "### 명령어:\n비 와?\n\n### 응답:\n")
    long = plain_ids(chat_tokenizer, "네, 지금 밖에 비가 와요." + EOS)
    encoder = Encoder(chat_tokenizer, len(prompt) + len(long) - 4)
    (row,) = encoder.rankings([Ranking((user("비 와?"),), ("몰라", "네, 지금 밖에 비가 와요."), (2, 1))])
    assert row.prompt.tolist() == prompt[4:]
    assert row.answers[1].tolist() == long
    assert (encoder.report.rows_with_cut_prompt, encoder.report.rows_with_cut_answer) == (1, 0)


def test_ranking_cuts_only_the_answers_that_are_too_long(chat_tokenizer):
    prompt = plain_ids(chat_tokenizer, HEADER + "### 명령어:\n비 와?\n\n### 응답:\n")
    long, short = plain_ids(chat_tokenizer, "뷁" * 100 + EOS), plain_ids(chat_tokenizer, "네" + EOS)
    encoder = Encoder(chat_tokenizer, 80)
    (row,) = encoder.rankings([Ranking((user("비 와?"),), ("뷁" * 100, "네"), (1, 2))])
    assert row.prompt.tolist() == prompt[-20:]
    assert row.answers[0].tolist() == long[:60]
    assert row.answers[1].tolist() == short
    assert (encoder.report.rows_with_cut_prompt, encoder.report.rows_with_cut_answer) == (1, 1)


def test_the_last_answer_alone_can_be_learnt(chat_tokenizer):
    """Two exchanges: the first answer and its EOS are what the second is conditioned on, as the questions are."""
    talk = demonstration("점심 뭐 먹지?", "김밥은 어떠세요?", "그럼 저녁은?", "국수요!")
    (last,) = Encoder(chat_tokenizer, LONG, "last").demonstrations([talk])
    (everything,) = Encoder(chat_tokenizer, LONG).demonstrations([talk])
    assert last.ids.tolist() == everything.ids.tolist()
    assert decoded(chat_tokenizer, last.ids[last.answer_mask]) == "국수요!" + EOS
    assert decoded(chat_tokenizer, everything.ids[everything.answer_mask]) == f"김밥은 어떠세요?{EOS}국수요!{EOS}"


def test_a_cut_row_still_learns_the_last_answer_alone(chat_tokenizer):
    """One exchange left of two, and then a prompt cut on the left: the mask moves with the ids."""
    talk = demonstration("점심 뭐 먹지?", "김밥은 어떠세요?", "그럼 저녁은 무엇을 먹으면 좋을까요?", "국수요!")
    answer = plain_ids(chat_tokenizer, "국수요!" + EOS)
    encoder = Encoder(chat_tokenizer, len(answer) + 9, "last")
    (row,) = encoder.demonstrations([talk])
    assert encoder.report.rows_with_dropped_turns == encoder.report.rows_with_cut_prompt == 1
    assert row.ids[row.answer_mask].tolist() == answer
    assert encoder.report.num_answer_tokens == len(answer)
