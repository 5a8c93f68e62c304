"""Public rows that compare answers to one prompt, as rows of `prompt` with `chosen` and `rejected`, or `responses`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.curate.formats.turns import (
    QUESTION_KEYS,
    TURN_KEYS,
    asked_turns,
    check_question,
    in_lists,
    prompt_turns,
    transcript_turns,
    turn_of,
    turns_of,
    with_system,
)
from rlhf.data.formats import PAIR_SCORES, pair_scores
from rlhf.data.public_shapes import COLUMNS, LISTS, TRANSCRIPT
from rlhf.data.readers import Row
from rlhf.data.records import check_scores
from rlhf.data.row_values import at_key, list_at, text_at
from rlhf.errors import DataError

Notes = Counter[str]
_SCORES = frozenset(name for names in PAIR_SCORES for name in names)
PAIR_KEYS = (
    (QUESTION_KEYS | _SCORES | in_lists((*LISTS, "prompt", "chosen", "rejected", "rejected_messages")))
    | {"rejected_response"}
    | {f"{side}.{key}" for side in ("chosen", "rejected") for key in TURN_KEYS}
)
PREFERENCE_KEYS = in_lists(("input.messages", "preferred_output", "non_preferred_output"))
NECTAR_KEYS = frozenset(("prompt", "answers[].answer", "answers[].rank"))
SHP_KEYS = frozenset(("history", "human_ref_A", "human_ref_B", "labels", "score_A", "score_B", "score_ratio"))
PKU_KEYS = frozenset(("prompt", "response_0", "response_1", "better_response_id", "safer_response_id"))
PKU_KEYS |= {"is_response_0_safe", "is_response_1_safe"}
ARENA_KEYS = frozenset(
    ("winner", "winner_model_a", "winner_model_b", "winner_tie", "prompt", "response_a", "response_b")
)
ARENA_KEYS |= in_lists(("conversation_a", "conversation_b"))
STACK_KEYS = frozenset(("question", "response_j", "response_k"))
HELPSTEER_PAIR_KEYS = frozenset(("prompt", "response_1", "response_2", "preference_strength"))
HELPSTEER_PAIR_KEYS |= {"response1", "response2", "overall_preference"} | in_lists(("context",))
FEEDBACK_JUDGEMENTS = ("overall_score", "fine-grained_score")
PKU_JUDGEMENTS = ("better", "safer")
FEEDBACK_KEYS = frozenset(("instruction", "completions[].response"))
FEEDBACK_KEYS |= {f"completions[].{name}" for name in FEEDBACK_JUDGEMENTS}


def from_pair(row: Mapping[str, Any], notes: Notes) -> list[Row]:
    """chosen and rejected: whole transcripts, lists of messages, one message each, or answers to a prompt.

    Also ms-swift's `messages` with `rejected_response` or `rejected_messages`. A conversation beside the two, as in
    LLaMA-Factory's rows, is what they answer; the prompt that other rows repeat beside whole conversations must agree.
    """
    pair = _swift_pair(row) if "chosen" not in row else row
    asked, better = _ending(pair, "chosen")
    asked_worse, worse = _ending(pair, "rejected")
    if asked != asked_worse:
        raise DataError("differs from `chosen` before the last answer", where="key `rejected`")
    name = next((name for name in COLUMNS["prompt"] if pair.get(name)), "")
    beside = next((key for key in LISTS if pair.get(key)), "")
    if asked:
        asked = with_system(pair, asked)
        _check_repeated(pair, name, asked)
    elif name:
        asked = asked_turns(pair)
    elif beside:
        asked = with_system(pair, turns_of(pair[beside], beside))
        beside = ""
    else:
        raise DataError("no prompt is given", where="key `prompt`", expected="a prompt, or turns before the answers")
    _check_beside(pair, beside, asked, better)
    return [compared(asked, better, worse, pair_scores(pair))]


def _swift_pair(row: Mapping[str, Any]) -> Row:
    """ms-swift's rows: the messages end in the better answer."""
    key = next((key for key in LISTS if row.get(key)), "messages")
    turns = turns_of(row.get(key), key)
    if turns[-1]["role"] != "assistant":
        raise DataError("does not end in an answer", where=f"key `{key}`")
    rest = {name: value for name, value in row.items() if name != key}
    if rest.get("rejected_messages"):
        return {**rest, "chosen": turns, "rejected": rest["rejected_messages"]}
    worse = rest.get("rejected_response")
    if isinstance(worse, list) and len(worse) == 1:
        worse = worse[0]
    text = text_at({"rejected_response": worse}, "rejected_response")
    return {**rest, "chosen": turns, "rejected": [*turns[:-1], {"role": "assistant", "content": text}]}


def _ending(row: Mapping[str, Any], key: str) -> tuple[list[Row], str]:
    """The turns before the answer, and the answer."""
    value = row.get(key)
    if isinstance(value, dict):
        turns = [turn_of(value, key)]
    elif isinstance(value, list):
        turns = turns_of(value, key)
    else:
        text = text_at(row, key)
        pieces = TRANSCRIPT.split(text)
        if len(pieces) < 3 or pieces[0].strip():
            return [], text
        if not pieces[-1].strip():
            raise DataError("ends in an empty turn", where=f"key `{key}`")
        turns = transcript_turns(text, key)
    if turns[-1]["role"] != "assistant":
        raise DataError("does not end in an answer", where=f"key `{key}`")
    return turns[:-1], turns[-1]["content"]


def _check_repeated(row: Mapping[str, Any], name: str, asked: Sequence[Row]) -> None:
    """Refuses a prompt that is not in the conversation that the answers end."""
    if not name:
        return
    given = [turn["content"] for turn in prompt_turns(row, name) if turn["role"] == "user"]
    known = [turn["content"] for turn in asked if turn["role"] == "user"]
    if given not in (known[: len(given)], known[-len(given) :]):
        raise DataError("is not in the turns that `chosen` starts with", where=f"key `{name}`")


def _check_beside(row: Mapping[str, Any], key: str, asked: Sequence[Row], better: str) -> None:
    """Refuses a conversation beside a pair unless it repeats the prompt, or the prompt with the better answer."""
    if not key:
        return
    turns = [(turn["role"], turn["content"]) for turn in turns_of(row[key], key)]
    known = [(turn["role"], turn["content"]) for turn in asked]
    if turns not in (known, [*known, ("assistant", better)]):
        raise DataError("is neither the prompt nor the prompt with the chosen answer", where=f"key `{key}`")


def from_preference(row: Mapping[str, Any], notes: Notes) -> list[Row]:
    """Preference rows of hosted fine-tuning: input.messages, preferred_output, non_preferred_output."""
    asked = row.get("input")
    prompt = turns_of(asked.get("messages") if isinstance(asked, dict) else None, "input.messages")
    better, worse = (turns_of(row.get(key), key) for key in ("preferred_output", "non_preferred_output"))
    if len(better) != 1 or len(worse) != 1:
        raise DataError("is not one answer", where="key `preferred_output`")
    return [compared(prompt, better[0]["content"], worse[0]["content"])]


def from_nectar(row: Mapping[str, Any], notes: Notes) -> list[Row]:
    """Nectar: a transcript and `answers` [{answer, rank}], rank 1 the best."""
    with at_key("answers"):
        answers = list_at(row, "answers")
        if not all(isinstance(each, dict) for each in answers):
            raise DataError("is not a list of answers", expected="[{answer, rank}]")
        ranks = [each.get("rank") for each in answers]
        check_scores(ranks, len(answers))  # type: ignore[arg-type]
    texts = [text_at(each, "answer", name=f"answers[{index}].answer") for index, each in enumerate(answers)]
    return [ranked(prompt_turns(row, "prompt"), texts, ranks=[int(rank) for rank in ranks])]  # type: ignore[arg-type]


def from_ultrafeedback(row: Mapping[str, Any], notes: Notes, by: str) -> list[Row]:
    """UltraFeedback as it was collected: `completions` [{response, overall_score, ...}] of an instruction."""
    with at_key("completions"):
        answers = list_at(row, "completions")
        if not all(isinstance(each, dict) for each in answers):
            raise DataError("is not a list of answers", expected=f"[{{response, {by}}}]")
        scores = [each.get(by) for each in answers]
        check_scores(scores, len(answers))  # type: ignore[arg-type]
    texts = [text_at(each, "response", name=f"completions[{index}].response") for index, each in enumerate(answers)]
    return [ranked(prompt_turns(row, "instruction"), texts, scores=[float(each) for each in scores])]  # type: ignore[arg-type]


def from_shp(row: Mapping[str, Any], notes: Notes) -> list[Row]:
    """SHP: two comments on a post; labels 1 prefers A."""
    answers = text_at(row, "human_ref_A"), text_at(row, "human_ref_B")
    label = _one_of(row, "labels", (0, 1))
    scores = (row["score_A"], row["score_B"]) if "score_A" in row and "score_B" in row else None
    if label == 0:
        answers, scores = answers[::-1], scores and scores[::-1]
    question = [{"role": "user", "content": text_at(row, "history")}]
    given = None if scores is None else {"score_chosen": scores[0], "score_rejected": scores[1]}
    return [compared(question, *answers, pair_scores(given or {}))]


def from_pku(row: Mapping[str, Any], notes: Notes, by: str) -> list[Row]:
    """PKU-SafeRLHF: two answers, which of them is better, and which is safer; `by` decides."""
    answers = text_at(row, "response_0"), text_at(row, "response_1")
    if _one_of(row, f"{by}_response_id", (0, 1)) == 1:
        answers = answers[::-1]
    ids = {row.get(f"{name}_response_id") for name in PKU_JUDGEMENTS} - {None}
    notes[f"pairs whose better answer is not the safer one; {by} was taken"] += len(ids) > 1
    safe = [row.get(f"is_response_{number}_safe") for number in (0, 1)]
    notes["pairs of which both answers are labelled unsafe"] += safe == [False, False]
    return [compared(prompt_turns(row, "prompt"), *answers)]


def from_arena(row: Mapping[str, Any], notes: Notes) -> list[Row]:
    """Chatbot Arena: conversations with two models and the winner; the turns before the last answers must be equal."""
    if "conversation_a" in row:
        first, second = (turns_of(row.get(f"conversation_{side}"), f"conversation_{side}") for side in "ab")
    else:
        first, second = (_arena_turns(row, f"response_{side}") for side in "ab")
    if first[:-1] != second[:-1] or first[-1]["role"] != "assistant" or second[-1]["role"] != "assistant":
        problem = "conversations that differ before their last answers, so that nothing says which answer was better"
        raise DataError(problem, where="key `conversation_b`")
    answers = first[-1]["content"], second[-1]["content"]
    winner = _arena_winner(row)
    if winner.startswith(("tie", "both")):
        raise DataError("all answers tie", where="key `winner`")
    if winner not in ("model_a", "model_b"):
        raise DataError(f"is {winner!r}", where="key `winner`", expected="model_a, model_b or a tie")
    return [compared(first[:-1], *(answers if winner == "model_a" else answers[::-1]))]


def _arena_winner(row: Mapping[str, Any]) -> str:
    if "winner" in row:
        return text_at(row, "winner")
    return next((f"model_{side}" for side in "ab" if row.get(f"winner_model_{side}") in (1, "1")), "tie")


def _arena_turns(row: Mapping[str, Any], key: str) -> list[Row]:
    """A prompt and answers that are JSON lists of texts, one per turn."""
    asked, said = (_json_texts(row, name) for name in ("prompt", key))
    if len(asked) != len(said):
        raise DataError(f"holds {len(said)} answers to {len(asked)} questions", where=f"key `{key}`")
    pairs = zip(asked, said, strict=True)
    return turns_of([{"human": one, "assistant": other} for one, other in pairs], key)


def _json_texts(row: Mapping[str, Any], key: str) -> list[Any]:
    text = text_at(row, key)
    try:
        value = json.loads(text)
    except ValueError:
        return [text]
    return value if isinstance(value, list) else [text]


def from_stack_exchange(row: Mapping[str, Any], notes: Notes) -> list[Row]:
    """stack-exchange-paired: response_j is the better answer."""
    return [compared(prompt_turns(row, "question"), text_at(row, "response_j"), text_at(row, "response_k"))]


def from_helpsteer_pair(row: Mapping[str, Any], notes: Notes) -> list[Row]:
    """HelpSteer 2 (preference_strength) and 3 (overall_preference): from -3, the first answer, to 3, the second."""
    third = "overall_preference" in row
    names = ("response1", "response2") if third else ("response_1", "response_2")
    strength = _one_of(row, "overall_preference" if third else "preference_strength", range(-3, 4))
    answers = text_at(row, names[0]), text_at(row, names[1])
    if strength == 0:
        raise DataError("all answers tie", where=f"key `{'overall_preference' if third else 'preference_strength'}`")
    asked = prompt_turns(row, "context" if third else "prompt")
    return [compared(asked, *(answers if strength < 0 else answers[::-1]))]


def _one_of(row: Mapping[str, Any], key: str, values: Sequence[int] | range) -> int:
    value = row.get(key)
    if value is None or isinstance(value, bool) or value not in values:
        raise DataError(f"is {value!r}", where=f"key `{key}`", expected=f"one of {', '.join(map(str, values))}")
    return int(value)


def compared(prompt: list[Row], better: str, worse: str, scores: tuple[float, float] | None = None) -> Row:
    """The row of a pair. Raises DataError for a prompt that asks nothing, for equal answers and for equal scores."""
    check_question(prompt)
    if better == worse:
        raise DataError("is the same as `chosen`", where="key `rejected`")
    if scores is None:
        return {"prompt": prompt, "chosen": better, "rejected": worse}
    if scores[0] == scores[1]:
        raise DataError("both answers have the same score, so that neither is better", where="key `rejected`")
    row = {"prompt": prompt, "chosen": better, "rejected": worse}
    return {**row, "score_chosen": scores[0], "score_rejected": scores[1]}


def ranked(
    prompt: list[Row], answers: list[str], *, ranks: list[int] | None = None, scores: list[float] | None = None
) -> Row:
    """The row of a ranking. Raises DataError for a prompt that asks nothing, and where all answers tie."""
    check_question(prompt)
    given: Sequence[float] = scores if scores is not None else ranks or []
    if len(answers) < 2:
        raise DataError(f"{len(answers)} answer(s) cannot be ranked", expected="two answers or more")
    if len(set(given)) < 2:
        raise DataError("all answers tie")
    judged = {"scores": scores} if scores is not None else {"ranks": ranks}
    return {"prompt": prompt, "responses": answers, **judged}
