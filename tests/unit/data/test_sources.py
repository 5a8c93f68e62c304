from __future__ import annotations

import json
import unicodedata

import pytest

from rlhf.data.records import Demonstration, Message, Prompt, Ranking
from rlhf.data.sources import DataSource, SourceReport, read_records
from rlhf.errors import DataError

ASK = {"role": "user", "content": "안녕?"}
ANSWER = {"role": "assistant", "content": "안녕하세요!"}
RUDE = {"role": "assistant", "content": "왜."}
GOOD = {"prompt": "안녕?", "response": "안녕하세요!"}
HELLO = Demonstration((Message("user", "안녕?"), Message("assistant", "안녕하세요!")), source="file")
PAIR = Ranking((Message("user", "안녕?"),), ("안녕하세요!", "왜."), (1, 2), source="file")


def write(tmp_path, rows, name="file.jsonl"):
    path = tmp_path / name
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def read(path, kind, **options):
    return read_records(DataSource(path), kind, **options)


@pytest.mark.parametrize(
    ("row", "format", "record"),
    [
        (GOOD, "prompt-response", HELLO),
        ({"prompt": [ASK], "response": "안녕하세요!"}, "prompt-response", HELLO),
        ({"prompt": "안녕?", "completion": " 안녕하세요!\n"}, "prompt-completion", HELLO),
        ({"instruction": "안녕?", "output": "안녕하세요!", "input": None, "id": 3}, "instruction", HELLO),
        ({"messages": [ASK, ANSWER]}, "messages", HELLO),
        ({"prompt": "안녕?", "chosen": "안녕하세요!", "rejected": "왜."}, "chosen-rejected", PAIR),
        ({"prompt": [ASK], "chosen": [ANSWER], "rejected": [RUDE]}, "chosen-rejected", PAIR),
        ({"chosen": [ASK, ANSWER], "rejected": [ASK, RUDE]}, "chosen-rejected", PAIR),
        ({"prompt": "안녕?", "chosen": [ASK, ANSWER], "rejected": [ASK, RUDE]}, "chosen-rejected", PAIR),
        ({"prompt": "안녕?", "responses": ["안녕하세요!", "왜."], "ranks": [1, 2]}, "ranking", PAIR),
        ({"prompt": "안녕?"}, "prompt", Prompt((Message("user", "안녕?"),), "file")),
        ({"prompt": [ASK]}, "prompt", Prompt((Message("user", "안녕?"),), "file")),
        ({"messages": [ASK]}, "messages", Prompt((Message("user", "안녕?"),), "file")),
    ],
)
def test_each_format_is_sniffed_and_read(tmp_path, row, format, record):
    path = write(tmp_path, [row])
    result = read(path, type(record))
    assert result.records == [record]
    assert result.report.format == format
    named = read_records(DataSource(path, format=format), type(record))
    assert named.records == [record]


def test_format_prompt_takes_messages_when_named(tmp_path):
    path = write(tmp_path, [{"messages": [ASK]}])
    assert len(read_records(DataSource(path, format="prompt"), Prompt).records) == 1
    path = write(tmp_path, [{"messages": [ASK, ANSWER]}])
    with pytest.raises(DataError, match="ends in a turn by assistant"):
        read_records(DataSource(path, format="prompt"), Prompt)


def test_instruction_input_stays_apart(tmp_path):
    path = write(tmp_path, [{"instruction": "요약해 줘.", "input": " 긴 글 ", "output": "짧은 글입니다."}])
    assert read(path, Demonstration).records[0].messages[0] == Message("user", "요약해 줘.", input="긴 글")


def test_scores_become_ranks_and_ties_are_equal(tmp_path):
    row = {"prompt": "안녕?", "responses": ["가", "나", "다", "라"], "scores": [3, 5.5, 3, 1]}
    (ranking,) = read(write(tmp_path, [row]), Ranking).records
    assert ranking.ranks == (2, 1, 2, 4)  # 5.5 is best, two answers share 3, three are above 1
    assert ranking.scores == (3.0, 5.5, 3.0, 1.0)
    (given,) = read(write(tmp_path, [{**row, "ranks": [1, 2, 3, 4]}]), Ranking).records
    assert given.ranks == (1, 2, 3, 4)
    assert given.scores == (3.0, 5.5, 3.0, 1.0)


def test_source_name(tmp_path):
    path = write(tmp_path, [GOOD, {**GOOD, "source": "일상"}])
    records = read_records(DataSource(path, name="모음"), Demonstration).records
    assert [record.source for record in records] == ["모음", "일상"]


def test_an_empty_source_in_a_row_is_that_of_the_file(tmp_path):
    path = write(tmp_path, [{**GOOD, "source": " "}, {**GOOD, "source": None}])
    assert read(path, Demonstration).records == [HELLO, HELLO]


def test_conversions_are_counted_and_ties_left_out(tmp_path):
    tied = {"prompt": "뭐 해?", "responses": ["가", "나"], "ranks": [1, 1]}
    ranked = {"prompt": "안녕?", "responses": ["왜.", "안녕하세요!"], "ranks": [2, 1]}
    path = write(tmp_path, [tied, ranked])

    demonstrations = read_records(DataSource(path), Demonstration)
    assert [record.messages[-1].content for record in demonstrations.records] == ["안녕하세요!"]
    report = demonstrations.report
    assert (report.num_rows, report.num_kept, report.num_tied, report.num_converted) == (2, 1, 1, 1)

    report = read(path, Ranking).report
    assert (report.num_rows, report.num_kept, report.num_tied, report.num_converted) == (2, 1, 1, 0)

    prompts = read(path, Prompt)  # a prompt is a prompt, whether or not its answers tie
    assert [record.reference for record in prompts.records] == ["가", "안녕하세요!"]
    assert (prompts.report.num_tied, prompts.report.num_converted) == (0, 2)


def test_demonstrations_become_prompts(tmp_path):
    prompts = read(write(tmp_path, [GOOD]), Prompt)
    assert prompts.records == [Prompt((Message("user", "안녕?"),), "file", "안녕하세요!")]
    assert prompts.report.num_converted == 1


@pytest.mark.parametrize(
    ("row", "kind", "needs"),
    [
        (GOOD, Ranking, "ranking {prompt, responses, ranks or scores}"),
        ({"prompt": "안녕?"}, Ranking, "chosen-rejected {chosen, rejected"),
        ({"prompt": "안녕?"}, Demonstration, "prompt-response {prompt, response}"),
    ],
)
@pytest.mark.parametrize("format", ["auto", "named"])
def test_poorer_file_than_needed_says_what_is_needed(tmp_path, row, kind, needs, format):
    path = write(tmp_path, [row])
    named = "prompt-response" if "response" in row else "prompt"
    with pytest.raises(DataError) as caught:  # in skip mode too: no row of such a file can help
        read_records(DataSource(path, format if format == "auto" else named), kind, on_bad_row="skip")
    assert needs in caught.value.expected
    assert path in caught.value.where


def test_unknown_keys_list_the_formats_and_the_misspelt_key(tmp_path):
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, [{"promt": "안녕?", "text": "안녕하세요!"}]), Demonstration)
    assert "`promt`, `text`" in caught.value.problem
    assert "messages [{role, content}]" in caught.value.expected
    assert "instruction, output" in caught.value.expected
    assert caught.value.fix == "rename `promt` to `prompt`"
    assert caught.value.where.endswith("file.jsonl:1")


def test_misspelt_answer_key_is_named(tmp_path):
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, [{"prompt": "안녕?", "respones": "안녕하세요!"}]), Demonstration)
    assert caught.value.fix == "rename `respones` to `response`"


BAD_ROWS = [
    ({"prompt": "안녕?"}, "key `response`", "is missing"),
    ({"prompt": "안녕?", "response": None}, "key `response`", "is null, not text"),
    ({"prompt": 7, "response": "네."}, "key `prompt`", "is int, not text"),
    ({"prompt": "안녕?", "response": " \n "}, "key `response`", "is empty"),
    ({"prompt": "안녕?", "response": "\ud83d"}, "key `response`", "surrogate"),
    ({"prompt": [ASK, ANSWER], "response": "네."}, "key `prompt`", "ends in a turn by assistant"),
    ({"prompt": [], "response": "네."}, "key `prompt`", "without turns"),
    ({"prompt": [{"role": "bot", "content": "네"}], "response": "네."}, "key `prompt[0]`", "role 'bot'"),
    ({"prompt": [{"role": "user"}], "response": "네."}, "key `prompt[0].content`", "is missing"),
    ({"prompt": ["안녕"], "response": "네."}, "key `prompt[0]`", "is str, not a message"),
    ({**GOOD, "source": 3}, "key `source`", "is int, not text"),
    (["안녕?", "네."], "", "a row that is a list"),
    ('{"prompt": "안녕?", "respon', "", "invalid JSON"),
]


@pytest.mark.parametrize(("row", "key", "problem"), BAD_ROWS)
def test_bad_row_names_file_line_and_key(tmp_path, row, key, problem):
    line = row if isinstance(row, str) else json.dumps(row)  # ascii, so that half a surrogate can be written
    path = write(tmp_path, [GOOD, "", line])
    with pytest.raises(DataError) as caught:
        read(path, Demonstration)
    assert caught.value.where == f"{path}:3" + (f"  {key}" if key else "")
    assert problem in caught.value.problem
    assert caught.value.fix


BAD_RANKINGS = [
    ({"responses": "가"}, "responses", "is str, not a list"),
    ({"responses": ["가"]}, "responses", "1 answer"),
    ({"responses": ["가", "나", ""]}, "responses[2]", "is empty"),
    ({"responses": ["가", 5]}, "responses[1]", "is int, not text"),
    ({"ranks": [1, 2, 3]}, "ranks", "3 ranks for 2 answers"),
    ({"ranks": [0, 1]}, "ranks", "rank 0"),
    ({"ranks": [1, "2"]}, "ranks", "rank '2'"),
    ({"ranks": None}, "ranks", "is null, not a list"),
    ({"scores": [1.0]}, "scores", "1 scores for 2 answers"),
    ({"scores": [1.0, float("inf")]}, "scores", "score inf"),
    ({"prompt": [ANSWER]}, "prompt", "turn 1 is by assistant"),
]


@pytest.mark.parametrize(("change", "key", "problem"), BAD_RANKINGS)
def test_bad_ranking_names_its_key(tmp_path, change, key, problem):
    good = {"prompt": "안녕?", "responses": ["가", "나"], "ranks": [1, 2]}
    path = write(tmp_path, [good, {**good, **change}])
    with pytest.raises(DataError) as caught:
        read(path, Ranking)
    assert caught.value.where == f"{path}:2  key `{key}`"
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    ("row", "key", "problem"),
    [
        (
            {"chosen": [ASK, ANSWER], "rejected": [{**ASK, "content": "뭐 해?"}, RUDE]},
            "rejected",
            "other turns",
        ),
        ({"chosen": [ASK], "rejected": [ASK, RUDE]}, "chosen", "does not end in an assistant turn"),
        ({"chosen": [ANSWER, ANSWER], "rejected": [ANSWER, RUDE]}, "chosen", "turn 1 is by assistant"),
        ({"chosen": [ANSWER], "rejected": [RUDE]}, "prompt", "is missing"),
        (
            {"prompt": "뭐 해?", "chosen": [ASK, ANSWER], "rejected": [ASK, RUDE]},
            "prompt",
            "is not in the turns",
        ),
        ({"chosen": "네.", "rejected": "왜."}, "prompt", "is missing"),
    ],
)
def test_bad_pair_names_its_key(tmp_path, row, key, problem):
    path = write(tmp_path, [row])
    with pytest.raises(DataError) as caught:
        read(path, Ranking)
    assert caught.value.where == f"{path}:1  key `{key}`"
    assert problem in caught.value.problem


def test_pair_of_longer_conversations_keeps_all_turns(tmp_path):
    later = {"role": "user", "content": "뭐 해?"}
    row = {"chosen": [ASK, ANSWER, later, ANSWER], "rejected": [ASK, ANSWER, later, RUDE]}
    for prompt in (None, "안녕?", "뭐 해?"):  # absent, the first question, the last
        (ranking,) = read(write(tmp_path, [{**row, "prompt": prompt}]), Ranking).records
        assert [turn.content for turn in ranking.prompt] == ["안녕?", "안녕하세요!", "뭐 해?"]
        assert ranking.responses == ("안녕하세요!", "왜.")


def test_messages_that_end_in_a_user_turn_are_no_demonstration(tmp_path):
    path = write(tmp_path, [{"messages": [ASK, ANSWER]}, {"messages": [ASK]}])
    with pytest.raises(DataError) as caught:
        read(path, Demonstration)
    assert caught.value.where == f"{path}:2  key `messages`"


def test_skip_counts_bad_rows_and_keeps_the_first_reasons(tmp_path):
    path = write(tmp_path, [GOOD, *({"prompt": "안녕?"} for _ in range(6)), '{"prompt": ', GOOD])
    result = read(path, Demonstration, on_bad_row="skip")
    report = result.report
    assert result.records == [HELLO, HELLO]
    assert (report.num_rows, report.num_kept, report.num_skipped, report.num_tied) == (9, 2, 7, 0)
    assert len(report.skipped) == 5
    assert report.skipped[0].startswith("line 2  key `response`: is missing")
    assert report.skipped[4].startswith("line 6 ")


def test_skip_passes_over_undecodable_and_cut_lines(tmp_path):
    path = tmp_path / "file.jsonl"
    good = json.dumps(GOOD, ensure_ascii=False).encode()
    path.write_bytes(b"\n".join([good.decode().encode("cp949"), good, good[:20]]) + b"\n")
    report = read(str(path), Demonstration, on_bad_row="skip").report
    assert (report.num_rows, report.num_kept, report.num_skipped) == (3, 1, 2)
    assert "is not UTF-8" in report.skipped[0]
    assert report.skipped[1].startswith("line 3: invalid JSON")


@pytest.mark.parametrize(("rows", "said"), [([], "no rows"), (["", " "], "no rows")])
def test_file_without_rows_is_an_error(tmp_path, rows, said):
    with pytest.raises(DataError, match=said):
        read(write(tmp_path, rows), Prompt)


def test_file_without_a_usable_row_is_an_error_in_skip_mode(tmp_path):
    bad = {"prompt": "안녕?", "response": ""}
    with pytest.raises(DataError, match="none of 2 rows can be used: 2 bad") as caught:
        read(write(tmp_path, [bad, bad]), Demonstration, on_bad_row="skip")
    assert "line 1  key `response`" in caught.value.fix
    tied = {"prompt": "안녕?", "responses": ["가", "나"], "ranks": [1, 1]}
    with pytest.raises(DataError, match="none of 1 rows can be used: 0 bad, 1 rankings in which all answers tie"):
        read(write(tmp_path, [tied]), Ranking)


def test_unknown_suffix_format_and_limit_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"cannot read a \.txt file"):
        read(write(tmp_path, [GOOD], "file.txt"), Demonstration)
    with pytest.raises(DataError, match="format 'alpaca'"):
        DataSource("x.jsonl", format="alpaca")
    with pytest.raises(DataError, match="limit 0"):
        DataSource("x.jsonl", limit=0)


def test_limit_counts_usable_records(tmp_path):
    path = write(tmp_path, [{"prompt": "안녕?"}, GOOD, GOOD, GOOD])
    source = DataSource(path, format="prompt-response", limit=2)
    result = read_records(source, Demonstration, on_bad_row="skip")
    assert (len(result.records), result.report.num_rows, result.report.num_skipped) == (2, 3, 1)


def test_texts_become_nfc_and_lose_outer_whitespace_only(tmp_path):
    decomposed = unicodedata.normalize("NFD", "한글")
    assert len(decomposed) == 6
    row = {"prompt": f"\u3000{decomposed}\n", "response": "첫 줄  끝\n\n  둘째 줄 "}
    (record,) = read(write(tmp_path, [row]), Demonstration).records
    assert [turn.content for turn in record.messages] == ["한글", "첫 줄  끝\n\n  둘째 줄"]


def test_a_row_that_was_kept_can_be_counted_as_bad():
    report = SourceReport("file.jsonl", "prompt", "0" * 64, num_rows=7, num_kept=7)
    report.take_back(DataError("is empty", where="key `prompt`"), 3)
    assert (report.num_rows, report.num_kept, report.num_skipped) == (7, 6, 1)
    assert report.skipped == ["line 3  key `prompt`: is empty"]
    for line in range(4, 9):
        report.take_back(DataError("is empty"), line)
    assert (report.num_kept, report.num_skipped) == (1, 6)
    assert len(report.skipped) == 5  # the first few reasons alone
