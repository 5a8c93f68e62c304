"""Row formats: the keys that each reads, and the record that a row becomes.

A key that a format does not read is harmless, counted, or an error, as `row_keys` decides. Errors name the key of the
row, as in "key `responses[2]`"; the caller adds file and line.
"""

from __future__ import annotations

import difflib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import NamedTuple

from rlhf.data.public_shapes import LABELS, import_command, is_transcript, label_of
from rlhf.data.records import (
    Demonstration,
    Message,
    Prompt,
    Ranking,
    Record,
    check_ranks,
    check_responses,
    check_scores,
    check_turns,
)
from rlhf.data.row_keys import below, check_unread
from rlhf.data.row_values import (
    MESSAGE_KEYS,
    MISSING,
    Row,
    at_key,
    list_at,
    messages_at,
    optional_text,
    quoted_keys,
    text_at,
)
from rlhf.errors import DataError

PAIR_SCORES = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
)


class RowFormat(NamedTuple):
    """What a format reads.

    Attributes:
        keys: the keys of a row, for messages.
        required: sets of keys, any of which marks the format.
        reads: paths of every key that `parse` reads (see `row_keys`).
        parse: (row, source) to record.
    """

    keys: str
    required: tuple[set[str], ...]
    reads: frozenset[str]
    parse: Callable[[Row, str], Record]


def described(names: Iterable[str] = ()) -> str:
    """The formats (default: all) with their keys, for error messages."""
    return "; ".join(f"{name} {{{FORMATS[name].keys}}}" for name in names or FORMATS)


def rename_hint(row: Row, names: Iterable[str] = ()) -> str:
    """Which misspelt keys to rename so that the row has one of these formats (default: any), or ""."""
    known = set[str]().union(*(keys for each in FORMATS.values() for keys in each.required))
    strangers = [str(key) for key in row if key not in known]
    for keys in (keys for name in names or FORMATS for keys in FORMATS[name].required):
        near = {key: difflib.get_close_matches(key, strangers, n=1, cutoff=0.75) for key in keys - set(row)}
        if near and all(near.values()):
            return "rename " + ", ".join(f"`{near[key][0]}` to `{key}`" for key in sorted(near))
    return ""


def sniff(row: Row) -> str:
    """The format of a row by its keys. Raises DataError, which lists all formats, when there is none."""
    for name, each in FORMATS.items():
        if any(keys <= row.keys() for keys in each.required):
            return name
    problem = f"no known format has the keys {quoted_keys(row)}"
    raise DataError(problem, expected=described(), fix=rename_hint(row))


def parse(
    row: Row, format: str, source: str, *, ignore: Collection[str] = (), unread: dict[str, int] | None = None
) -> Record:
    """The record of a row in `format`.

    Args:
        row: the row.
        format: a name in `FORMATS`.
        source: the record's source, unless the row has a `source` of its own.
        ignore: names of keys that may be left out although they change what a row means.
        unread: counts the keys that the format does not read.

    Raises:
        DataError: for a row that cannot be used, and for a key that changes its meaning and is not read.
    """
    if row.get("criteria"):  # the scores of one answer by criteria, as evaluations store them
        ignore = (*ignore, "scores")
    check_unread(
        row,
        FORMATS[format].reads,
        f"format {format}",
        ignore=ignore,
        counts=unread,
        fix=f"convert the file: {import_command(row)}; or leave the key out by name: data.train='[{{path: FILE, "
        "ignore: [KEY]}]'",
    )
    if row.get("source") is not None and not isinstance(row["source"], list):  # Nectar lists where a prompt is from
        source = text_at(row, "source", allow_empty=True) or source
    try:
        return FORMATS[format].parse(row, source)
    except DataError as error:
        if error.fix or not error.problem.startswith(MISSING):
            raise
        raise DataError(
            error.problem, where=error.where, expected=error.expected, fix=rename_hint(row, [format])
        ) from None


def _asked(row: Row) -> tuple[Message, ...]:
    """The turns before the answer: a system text, earlier turns, and the question with its input."""
    if isinstance(row.get("prompt"), list):
        return _with_system(row, messages_at(row, "prompt", "user"))
    key = "instruction" if "prompt" not in row and "instruction" in row else "prompt"
    if is_transcript(row.get(key)):
        fix = f"convert the file: {import_command(row)}"
        raise DataError("is a transcript with Human: and Assistant:", where=f"key `{key}`", fix=fix)
    question = Message("user", text_at(row, key), optional_text(row, "input"))
    return _with_system(row, (*_history(row), question))


def _history(row: Row) -> list[Message]:
    """Earlier turns as LLaMA-Factory and ms-swift write them: `history` [[question, answer], ...]."""
    turns: list[Message] = []
    if not row.get("history"):
        return turns
    with at_key("history"):
        for index, pair in enumerate(list_at(row, "history")):
            if not isinstance(pair, list) or len(pair) != 2:
                raise DataError("is not a question and its answer", where=f"key `history[{index}]`")
            texts = {f"history[{index}][{side}]": text for side, text in enumerate(pair)}
            asked, answer = (text_at(texts, name) for name in texts)
            turns += [Message("user", asked), Message("assistant", answer)]
    return turns


def _with_system(row: Row, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    system = optional_text(row, "system")
    if not system:
        return turns
    if turns and turns[0].role == "system":
        if turns[0].content != system:
            raise DataError("is another text than the system turn", where="key `system`")
        return turns
    return (Message("system", system), *turns)


def _check_label(row: Row) -> None:
    """Refuses an answer that is labelled bad, which must not become a demonstration."""
    key, good = label_of(row)
    if row.get(key) is None:
        return
    if good is None:
        raise DataError(f"is {row[key]!r}", where=f"key `{key}`", expected="true (good) or false (bad)")
    if not good:
        fix = f"pair it with a good answer for stage 2: {import_command(row)}"
        raise DataError("says that the answer is bad", where=f"key `{key}`", fix=fix)


def _answered(answer_key: str, row: Row, source: str) -> Record:
    _check_label(row)
    asked = _asked(row)
    if isinstance(row.get(answer_key), list):  # the conversational form of TRL
        return Demonstration((*asked, *messages_at(row, answer_key)), source)
    return Demonstration((*asked, Message("assistant", text_at(row, answer_key))), source)


def _messages(row: Row, source: str) -> Record:
    _check_label(row)
    turns = _with_system(row, messages_at(row, "messages"))
    with at_key("messages"):
        if turns and turns[-1].role == "user":
            return Prompt(turns, source)
        return Demonstration(turns, source)


def _prompt(row: Row, source: str) -> Record:
    if "prompt" not in row and "messages" in row:
        return Prompt(_with_system(row, messages_at(row, "messages", "user")), source)
    return Prompt(_asked(row), source)


def _ranking(row: Row, source: str) -> Record:
    prompt = _asked(row)
    with at_key("responses"):
        values = list_at(row, "responses")
        texts = {f"responses[{index}]": value for index, value in enumerate(values)}
        responses = tuple(text_at(texts, name) for name in texts)
        check_responses(responses)
    scores = None
    if row.get("scores") is not None:
        with at_key("scores"):
            values = list_at(row, "scores")
            check_scores(values, len(responses))
            scores = tuple(map(float, values))
    if "ranks" in row or scores is None:
        with at_key("ranks"):
            ranks = tuple(list_at(row, "ranks"))
            check_ranks(ranks, len(responses))
    else:
        ascending = sorted(scores)
        ranks = tuple(1 + len(scores) - bisect_right(ascending, score) for score in scores)
    return Ranking(prompt, responses, ranks, source, scores)


def _chosen_rejected(row: Row, source: str) -> Record:
    before_chosen, chosen = _ending(row, "chosen")
    before_rejected, rejected = _ending(row, "rejected")
    if before_chosen != before_rejected:
        problem = "starts with other turns than `chosen`"
        raise DataError(problem, where="key `rejected`", expected="lists that differ in the last turn only")
    prompt = _with_system(row, before_chosen) if before_chosen else before_chosen
    if row.get("prompt") is not None or not prompt:
        prompt = _agreeing(_asked(row), prompt)
    with at_key("chosen"):
        check_turns(prompt, "user")
    _check_messages(row, prompt, chosen)
    scores = pair_scores(row)
    ranks = (1, 1) if scores is not None and scores[0] == scores[1] else (1, 2)
    return Ranking(prompt, (chosen, rejected), ranks, source, scores)


def pair_scores(row: Row) -> tuple[float, float] | None:
    """The scores of `chosen` and `rejected` under any of the public names, or None.

    Raises: DataError where only one is given, and where the rejected answer has the higher score.
    """
    for better, worse in PAIR_SCORES:
        values = [row.get(better), row.get(worse)]
        if values == [None, None]:
            continue
        with at_key(worse):
            check_scores([value for value in values if value is not None], 2)
            if values[1] > values[0]:  # type: ignore[operator]
                problem = f"is higher than `{better}`: {values[1]} against {values[0]}"
                raise DataError(problem, fix="swap the answers, or drop the row")
        return float(values[0]), float(values[1])  # type: ignore[arg-type]
    return None


def _check_messages(row: Row, prompt: tuple[Message, ...], chosen: str) -> None:
    """Refuses `messages` beside a pair unless they repeat the prompt, or the prompt with the chosen answer."""
    if not row.get("messages"):
        return
    turns = [(turn.role, turn.content) for turn in messages_at(row, "messages")]
    asked = [(turn.role, turn.content) for turn in prompt]
    if turns not in (asked, [*asked, ("assistant", chosen)]):
        problem = "is neither the prompt nor the prompt with the chosen answer"
        raise DataError(problem, where="key `messages`", fix=f"convert the file: {import_command(row)}")


def _agreeing(prompt: tuple[Message, ...], before: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns before the answers, which are given twice: in `prompt` and at the start of `chosen`.

    Public data sets repeat the whole conversation in `chosen`, and its first or last question in `prompt`.
    """
    asked = prompt[1:] if before and prompt[0].role == "system" and before[0] == prompt[0] else prompt
    turns = before[1:] if before and before[0].role == "system" else before
    if before and prompt != before and asked not in (turns[: len(asked)], turns[-len(asked) :]):
        problem = "is not in the turns that `chosen` starts with"
        raise DataError(problem, where="key `prompt`", fix="drop `prompt`, or keep the last turn of `chosen`")
    return before or prompt


def _ending(row: Row, key: str) -> tuple[tuple[Message, ...], str]:
    """The turns before the answer, and the answer."""
    if is_transcript(row.get(key)) or isinstance(row.get(key), dict):
        what = "one message" if isinstance(row[key], dict) else "a transcript with Human: and Assistant:"
        fix = f"convert the file: {import_command(row)}"
        raise DataError(f"is {what}", where=f"key `{key}`", expected="an answer, or a list of messages", fix=fix)
    if not isinstance(row.get(key), list):
        return (), text_at(row, key)
    turns = messages_at(row, key)
    if not turns or turns[-1].role != "assistant":
        raise DataError("does not end in an assistant turn", where=f"key `{key}`")
    return turns[:-1], turns[-1].content


def _reads(*keys: str, lists: Collection[str] = ()) -> frozenset[str]:
    paths = frozenset((*keys, "source"))
    return paths.union(*(below(key, MESSAGE_KEYS) for key in lists))


_QUESTION = ("instruction", "input", "system", "history")
_PER_ANSWER = ("answers", "models")  # what `rlhf data sample` writes on each of the responses
_PAIR_KEYS = [name for names in PAIR_SCORES for name in names]

# Recognised in this order: the more specific keys first, `prompt` alone last.
FORMATS = {
    "ranking": RowFormat(
        "prompt, responses, ranks or scores",
        ({"prompt", "responses", "ranks"}, {"prompt", "responses", "scores"}),
        _reads(*_QUESTION, "responses", "ranks", "scores", *_PER_ANSWER, lists=["prompt"]),
        _ranking,
    ),
    "chosen-rejected": RowFormat(
        "chosen, rejected, prompt unless both are message lists",
        ({"chosen", "rejected"},),
        _reads(*_QUESTION, *_PAIR_KEYS, lists=["prompt", "chosen", "rejected", "messages"]),
        _chosen_rejected,
    ),
    "prompt-response": RowFormat(
        "prompt, response",
        ({"prompt", "response"},),
        _reads(*_QUESTION, *LABELS, lists=["prompt", "response"]),
        partial(_answered, "response"),
    ),
    "prompt-completion": RowFormat(
        "prompt, completion",
        ({"prompt", "completion"},),
        _reads(*_QUESTION, *LABELS, lists=["prompt", "completion"]),
        partial(_answered, "completion"),
    ),
    "instruction": RowFormat(
        "instruction, output, input if any",
        ({"instruction", "output"},),
        _reads(*_QUESTION, *LABELS, "output"),
        partial(_answered, "output"),
    ),
    "messages": RowFormat(
        "messages [{role, content}]", ({"messages"},), _reads("system", *LABELS, lists=["messages"]), _messages
    ),
    "prompt": RowFormat(
        "prompt, or messages that end in a user turn",
        ({"prompt"},),
        _reads(*_QUESTION, lists=["prompt", "messages"]),
        _prompt,
    ),
}
