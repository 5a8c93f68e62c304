"""Leaves rows out of a data file, each for one stated reason.

The filters run in the order of `FilterOptions`: those that look at a row alone first, then the comparisons with
earlier prompts. A row counts under the first that dropped it. What is kept is kept as it was, unknown keys too,
but for texts that `clean` or `personal="mask"` are to change.

Comparisons are between rows that every filter before them kept; `vaiv` alone compares with every earlier prompt
of the file, as the filter of 2023 did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rlhf.config.flag_values import BAD_ROW, positive, similarity
from rlhf.config.flags import flag
from rlhf.curate.boilerplate import is_boilerplate
from rlhf.curate.filter.cleaning import Cleaner
from rlhf.curate.output import Output, progress
from rlhf.curate.row_texts import RowTexts, numbered_texts, spoken_strings, with_texts_changed
from rlhf.data.embedded import data_path
from rlhf.data.korean import contains_rude, hangul_share
from rlhf.data.readers import Location, NumberedRow, Row, locate, read_rows
from rlhf.data.sources import OnBadRow
from rlhf.errors import DataError, TokenizerError

EMPTIED, NEAR, SAME_MEANING = "nothing left of a text", "near-duplicate", "same meaning"
SHOWN = 90  # characters of each text of a dropped pair
Where = Literal["", "prompt", "answer", "any"]
Check = Callable[[Row, RowTexts], str]  # the text that drops the row, or ""
Drops = dict[int, tuple[str, str]]  # number of a row: the reason, and the text that shows it


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """What is left out; an empty value switches a filter off.

    Attributes:
        clean: take special tokens, invisible and control characters out of texts first, and drop a row of which a
            text then is empty.
        min_chars: prompts with fewer characters that are not whitespace (2023: 16).
        max_tokens: rows whose prompt and longest answer have more tokens of `tokenizer`, without a template.
        min_hangul: rows where less than this share of the letters of the prompt, or of a learnt answer, is Hangul.
        boilerplate: rows whose learnt answer, or prompt where there is none, is a refusal or talks of being an AI.
        rude: rows with a rude word in the prompt, in a learnt answer, or in either.
        personal: "drop" rows with personal information in any text, or "mask" it there.
        dedup: prompts that repeat an earlier one: "cosine" of character 2-3-grams, "vaiv" (words, 2023), "minhash".
        dedup_threshold: similarity from which a prompt is a repeat.
        semantic: prompts that repeat an earlier one by the vectors of this encoder's folder.
    """

    clean: bool = flag(
        False, "remove special tokens (<|endoftext|>), invisible and control characters from texts, before any filter"
    )
    min_chars: int = flag(
        0, "drop prompts with fewer than N characters that are not whitespace (2023: 16)", parse=positive, shown=""
    )
    max_tokens: int = flag(
        0,
        "drop rows whose prompt and longest answer have more than N tokens, without a template",
        parse=positive,
        shown="",
    )
    tokenizer: str = flag("", "model folder whose tokenizer counts", metavar="DIR")
    min_hangul: float = 0.0
    boilerplate: bool = flag(
        False, 'drop answers to learn that refuse or say "저는 AI 언어 모델이라…"; in files of prompts, such prompts'
    )
    rude: Where = flag("", "drop rows with a rude word in the prompt, the answer to learn, or either")
    personal: Literal["", "drop", "mask"] = flag(
        "",
        "personal information (phone, e-mail, address) in any text: drop the row, or mask it, as in [전화번호]",
        name="--pii",
    )
    dedup: Literal["", "cosine", "vaiv", "minhash"] = ""
    dedup_threshold: float = 0.5
    semantic: str = flag(
        "", "drop prompts whose embedding by this encoder is close to that of a kept one", metavar="DIR"
    )
    semantic_threshold: float = flag(0.85, "cosine of mean-centred embeddings", metavar="T", parse=similarity)
    on_bad_row: OnBadRow = flag("error", BAD_ROW)

    def named(self) -> dict[str, Any]:
        """The options that are switched on, for the manifest."""
        return {name: value for name, value in asdict(self).items() if value}

    def comparisons(self) -> list[str]:
        """The reasons of the comparisons that are switched on, in order."""
        return [*([NEAR] if self.dedup else []), *([SAME_MEANING] if self.semantic else [])]


def filter_rows(source: str, out: Path, options: FilterOptions) -> Output:
    """Writes the rows of `source` that pass every filter to `out`; the report on all of them.

    Raises: DataError for a file, option or (on_bad_row="error") row that cannot be used.
    """
    path = data_path(source)
    location = locate(path)
    output = Output(out, command="data filter", inputs=[path], options=options.named())
    with output:
        checks, cleaner = dict(_checks(options)), Cleaner() if options.clean else None
        cleaning = [EMPTIED] if cleaner else []
        output.dropped = dict.fromkeys([*cleaning, *checks, *options.comparisons()], 0)  # in order, with the idle ones
        prompts, dropped = _by_row(location, path, checks, options.on_bad_row, cleaner)
        _by_comparison(prompts, dropped, options)
        for number, (_, row) in enumerate(_rows(location, cleaner)):
            if number in dropped:
                output.drop(*dropped[number])
            else:
                assert not isinstance(row, DataError)
                output.write(_masked(row, output) if options.personal == "mask" else row)
        if cleaner is not None:
            output.count("texts cleaned", cleaner.num_changed)
    return output


def _rows(location: Location, cleaner: Cleaner | None) -> Iterator[NumberedRow]:
    rows = read_rows(location)
    return rows if cleaner is None else cleaner.rows(rows)


def _by_row(
    location: Location, path: str, checks: Mapping[str, Check], on_bad_row: str, cleaner: Cleaner | None
) -> tuple[list[str], Drops]:
    """The prompt of every row ("" of a bad one), and what the filters that need one row alone drop."""
    prompts: list[str] = []
    dropped: Drops = {}
    rows = numbered_texts(_rows(location, cleaner), path, on_bad_row)
    for number, (row, texts) in enumerate(progress(rows, "reading")):
        if isinstance(row, DataError) or isinstance(texts, DataError):
            prompts.append("")
            dropped[number] = ("bad row", texts.render() if isinstance(texts, DataError) else "")
            continue
        prompts.append(texts.prompt)
        if cleaner is not None and number in cleaner.emptied:
            dropped[number] = (EMPTIED, texts.prompt)
            continue
        for reason, check in checks.items():
            if evidence := check(row, texts):
                dropped[number] = (reason, evidence)
                break
    return prompts, dropped


def _checks(options: FilterOptions) -> Iterator[tuple[str, Check]]:
    """(reason, check) of each row filter that is switched on, in order."""
    if options.min_chars:
        yield f"fewer than {options.min_chars} characters", _shorter_than(options.min_chars)
    if options.max_tokens:
        yield f"more than {options.max_tokens} tokens", _longer_than(options.max_tokens, options.tokenizer)
    if options.min_hangul:
        yield f"less than {options.min_hangul:g} Hangul", _less_hangul_than(options.min_hangul)
    if options.boilerplate:
        yield "boilerplate", _with_boilerplate
    if options.rude:
        yield f"rude word ({options.rude})", _rude_in(options.rude)
    if options.personal == "drop":
        yield "personal information", _with_personal


def _shorter_than(minimum: int) -> Check:
    def check(_: Row, texts: RowTexts) -> str:
        return texts.prompt if sum(map(len, texts.prompt.split())) < minimum else ""

    return check


def _longer_than(maximum: int, folder: str) -> Check:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TokenizerError(f"cannot load a tokenizer from {folder}: {error}", where="--tokenizer") from error

    def check(_: Row, texts: RowTexts) -> str:
        pieces = [texts.prompt, *texts.answers]
        prompt, *answers = map(len, tokenizer(pieces, add_special_tokens=False)["input_ids"])
        return texts.prompt if prompt + max(answers, default=0) > maximum else ""

    return check


def _less_hangul_than(share: float) -> Check:
    def check(_: Row, texts: RowTexts) -> str:
        pieces = [text for text in (texts.prompt, *texts.learnt) if any(map(str.isalpha, text))]
        return next((text for text in pieces if hangul_share(text) < share), "")

    return check


def _with_boilerplate(_: Row, texts: RowTexts) -> str:
    return next(filter(is_boilerplate, texts.learnt or (texts.prompt,)), "")


def _rude_in(where: Where) -> Check:
    def check(_: Row, texts: RowTexts) -> str:
        prompt = (texts.prompt,) if where != "answer" else ()
        return next(filter(contains_rude, (*prompt, *(texts.learnt if where != "prompt" else ()))), "")

    return check


def _with_personal(row: Row, _: RowTexts) -> str:
    from rlhf.curate.privacy import find_personal

    for text in spoken_strings(row):
        if counts := find_personal(text):
            return ", ".join(counts)  # what was found, not the information itself
    return ""


def _masked(row: Row, output: Output) -> Row:
    from rlhf.curate.privacy import mask_personal

    def mask(text: str) -> str:
        masked, counts = mask_personal(text)
        for label, number in counts.items():
            output.count(f"masked {label}", number)
        return masked

    return with_texts_changed(row, mask)


def _by_comparison(prompts: Sequence[str], dropped: Drops, options: FilterOptions) -> None:
    """Adds to `dropped` the rows whose prompt repeats an earlier one."""
    from rlhf.curate.filter import repeats  # scikit-learn takes a second to import

    if options.dedup:
        search = {
            "cosine": repeats.cosine_repeats,
            "vaiv": repeats.vaiv_repeats,
            "minhash": repeats.minhash_repeats,
        }[options.dedup]
        everyone = options.dedup == "vaiv"
        numbers = [number for number in range(len(prompts)) if everyone or number not in dropped]
        found = search([prompts[number] for number in numbers], options.dedup_threshold)
        _add(dropped, NEAR, prompts, numbers, found)
    if options.semantic:
        from rlhf.curate.filter.embeddings import embedded

        numbers = [number for number in range(len(prompts)) if number not in dropped]
        vectors = embedded([prompts[number] for number in numbers], options.semantic)
        found = repeats.semantic_repeats(vectors, options.semantic_threshold)
        _add(dropped, SAME_MEANING, prompts, numbers, found)


def _add(dropped: Drops, reason: str, prompts: Sequence[str], numbers: Sequence[int], found: dict[int, Any]) -> None:
    for own, (earlier, likeness) in found.items():
        text, other = (" ".join(prompts[numbers[index]].split())[:SHOWN] for index in (own, earlier))
        dropped.setdefault(numbers[own], (reason, f"{text} ~ {other} ({likeness:.2f})"))
