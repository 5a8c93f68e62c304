"""`rlhf data filter`: drops rows of a data file, each for one stated reason.

The filters run in the order of `FilterOptions`: first those that look at a row alone, then the comparisons with
earlier prompts. A row counts under the first filter that drops it. Kept rows stay as they are, unknown keys
included, apart from texts changed by `clean` or `personal="mask"`.

Rows are compared only with rows that every filter before the comparison kept; `vaiv` alone compares with every
earlier prompt of the file, as the filter of 2023 did.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rlhf.curate.output import Output, progress
from rlhf.curate.refusals import is_boilerplate
from rlhf.curate.row_texts import RowTexts, numbered_texts, texts_of, with_texts_changed
from rlhf.curate.text_faults import cleaned
from rlhf.data.embedded import data_path
from rlhf.data.korean import contains_rude, hangul_share
from rlhf.data.readers import NumberedRow, Row, locate, read_rows
from rlhf.data.sources import OnBadRow
from rlhf.errors import DataError, TokenizerError

EMPTIED, NEAR, SAME_MEANING = "nothing left of a text", "near-duplicate", "same meaning"
SHOWN = 90  # characters of each text of a dropped pair
EXAMPLES = 3  # of each reason on the terminal; the manifest has more
Check = Callable[[Row, RowTexts], str]  # the text for which the row is dropped, or ""
Drops = dict[int, tuple[str, str]]  # by row number: the reason, and the text that shows it


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """What is dropped; an empty value switches a filter off.

    Attributes:
        source: data file, or demo:NAME.
        out: JSONL file to write.
        clean: first remove special tokens, invisible and control characters from texts, and drop a row in which
            nothing is left of a text.
        min_chars: drop prompts with fewer characters that are not whitespace (2023: 16).
        max_tokens: drop rows whose prompt and longest answer have more tokens of `tokenizer`, without a template.
        min_hangul: drop rows where less than this share of the letters of the prompt, or of a learnt answer, is Hangul.
        boilerplate: drop rows whose learnt answer, or prompt where there is none, refuses or talks about being an AI.
        rude: drop rows with a rude word in the prompt, in a learnt answer, or in either.
        personal: "drop" rows with personal information in any text, or "mask" it there.
        dedup: drop prompts that repeat an earlier one: "cosine" of character 2-3-grams, "vaiv" (words, 2023), "minhash".
        dedup_threshold: similarity from which a prompt is a repeat.
        semantic: drop prompts that repeat an earlier one by the embeddings of this encoder folder.
        semantic_threshold: cosine of mean-centred embeddings from which a prompt is a repeat.
    """

    source: str
    out: Path
    clean: bool = False
    min_chars: int = 0
    max_tokens: int = 0
    tokenizer: str = ""
    min_hangul: float = 0.0
    boilerplate: bool = False
    rude: Literal["", "prompt", "answer", "any"] = ""
    personal: Literal["", "drop", "mask"] = ""
    dedup: Literal["", "cosine", "vaiv", "minhash"] = ""
    dedup_threshold: float = 0.5
    semantic: str = ""
    semantic_threshold: float = 0.85
    on_bad_row: OnBadRow = "error"

    def __post_init__(self) -> None:
        if bool(self.max_tokens) != bool(self.tokenizer):
            raise DataError("--max-tokens and --tokenizer go together", fix="--max-tokens 512 --tokenizer DIR")

    def enabled(self) -> dict[str, Any]:
        """The options that are switched on, for the manifest."""
        return {name: value for name, value in asdict(self).items() if value and name not in ("source", "out")}

    @property
    def names_a_filter(self) -> bool:
        """Whether any row can be dropped or changed."""
        return bool(self.enabled().keys() - {"dedup_threshold", "semantic_threshold", "on_bad_row"})


def run(options: FilterOptions) -> int:
    """Filters the file and prints how many rows each filter dropped, with examples."""
    if not options.names_a_filter:
        raise DataError("no filter is named", fix="--min-chars 16 --dedup cosine:0.5; all of them: --help")
    output = filter_rows(options)
    sys.stdout.write(f"{output.summary()} (of {output.kept + sum(output.dropped.values())})\n")
    for reason, number in output.dropped.items():
        examples = output.examples.get(reason, [])[:EXAMPLES]
        sys.stdout.write(f"\n{reason}: {number}\n" if examples else "")
        sys.stdout.writelines(f"  {' '.join(example.split())}\n" for example in examples)
    return 0


def filter_rows(options: FilterOptions) -> Output:
    """Writes the rows that pass every filter to `options.out`; returns the report on all of them.

    Raises: DataError for a file, option or (on_bad_row="error") row that cannot be used.
    """
    path = data_path(options.source)
    locate(path)
    with Output(options.out, command="data filter", inputs=[path], options=options.enabled()) as output:
        checks, comparisons = dict(_checks(options)), dict(_comparisons(options))
        output.dropped = dict.fromkeys([*checks, *comparisons], 0)  # every filter is listed, in order
        prompts, dropped = _checked(_rows(path, options), path, checks, options.on_bad_row)
        for reason, search in comparisons.items():
            _drop_repeats(prompts, dropped, reason, search, everyone=reason == NEAR and options.dedup == "vaiv")
        for number, (_, row) in enumerate(_rows(path, options, output)):
            if number in dropped:
                output.drop(*dropped[number])
            else:
                assert not isinstance(row, DataError)
                output.write(_masked(row, output) if options.personal == "mask" else row)
    return output


def _rows(path: str, options: FilterOptions, output: Output | None = None) -> Iterator[NumberedRow]:
    """The rows, cleaned if asked for; the number of changed texts is counted in `output`."""
    for line, row in read_rows(locate(path)):
        yield line, _cleaned_row(row, output) if options.clean and not isinstance(row, DataError) else row


def _cleaned_row(row: Row, output: Output | None) -> Row:
    """The row with its texts cleaned; a row of which a text would vanish stays, to be dropped by `_emptied`."""
    texts = [text for _, text in texts_of(row)]
    changed = sum(text.strip() != cleaned(text) for text in texts)
    if not changed or _emptied(row):
        return row
    if output is not None:
        output.count("texts cleaned", changed)
    return with_texts_changed(row, cleaned)


def _emptied(row: Row) -> bool:
    return any(text.strip() and not cleaned(text) for _, text in texts_of(row))


def _checked(
    rows: Iterator[NumberedRow], path: str, checks: Mapping[str, Check], on_bad_row: str
) -> tuple[list[str], Drops]:
    """The prompt of every row ("" of a bad one), and the rows dropped by the filters that look at a row alone."""
    prompts: list[str] = []
    dropped: Drops = {}
    for number, (row, texts) in enumerate(progress(numbered_texts(rows, path, on_bad_row), "reading")):
        if isinstance(row, DataError) or isinstance(texts, DataError):
            prompts.append("")
            dropped[number] = ("bad row", texts.render() if isinstance(texts, DataError) else "")
            continue
        prompts.append(texts.prompt)
        for reason, check in checks.items():
            if evidence := check(row, texts):
                dropped[number] = (reason, evidence)
                break
    return prompts, dropped


def _checks(options: FilterOptions) -> Iterator[tuple[str, Check]]:
    """(reason, check) of each enabled filter that looks at a row alone, in order."""
    if options.clean:
        yield EMPTIED, lambda row, texts: texts.prompt if _emptied(row) else ""
    if options.min_chars:
        yield f"fewer than {options.min_chars} characters", _shorter_than(options.min_chars)
    if options.max_tokens:
        yield f"more than {options.max_tokens} tokens", _longer_than(options.max_tokens, options.tokenizer)
    if options.min_hangul:
        yield f"less than {options.min_hangul:g} Hangul", _less_hangul_than(options.min_hangul)
    if options.boilerplate:
        yield "boilerplate", lambda _, texts: next(filter(is_boilerplate, texts.learnt or (texts.prompt,)), "")
    if options.rude:
        yield f"rude word ({options.rude})", _rude_in(options.rude)
    if options.personal == "drop":
        yield "personal information", _with_personal


def _shorter_than(minimum: int) -> Check:
    return lambda _, texts: texts.prompt if sum(map(len, texts.prompt.split())) < minimum else ""


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


def _rude_in(where: str) -> Check:
    def check(_: Row, texts: RowTexts) -> str:
        prompt = (texts.prompt,) if where != "answer" else ()
        return next(filter(contains_rude, (*prompt, *(texts.learnt if where != "prompt" else ()))), "")

    return check


def _with_personal(row: Row, _: RowTexts) -> str:
    from rlhf.curate.privacy import find_personal

    found = (find_personal(text) for _, text in texts_of(row))
    return ", ".join(next(filter(None, found), ()))  # the kinds found, not the information itself


def _masked(row: Row, output: Output) -> Row:
    from rlhf.curate.privacy import mask_personal

    def mask(text: str) -> str:
        masked, counts = mask_personal(text)
        output.count_all(counts, "masked ")
        return masked

    return with_texts_changed(row, mask)


def _comparisons(options: FilterOptions) -> Iterator[tuple[str, Callable[[Sequence[str]], dict[int, Any]]]]:
    """(reason, search for repeats) of each enabled comparison of prompts, in order."""
    from rlhf.curate.filter import repeats
    from rlhf.curate.filter.embeddings import embedded

    if options.dedup:
        yield NEAR, partial(repeats.SEARCHES[options.dedup], threshold=options.dedup_threshold)
    if options.semantic:
        folder, threshold = options.semantic, options.semantic_threshold
        yield SAME_MEANING, lambda prompts: repeats.semantic_repeats(embedded(prompts, folder), threshold)


def _drop_repeats(
    prompts: Sequence[str],
    dropped: Drops,
    reason: str,
    search: Callable[[Sequence[str]], dict[int, Any]],
    *,
    everyone: bool,
) -> None:
    """Drops the rows whose prompt repeats an earlier one that was kept (of any, with `everyone`)."""
    numbers = [number for number in range(len(prompts)) if everyone or number not in dropped]
    for own, (earlier, similarity) in search([prompts[number] for number in numbers]).items():
        text, other = (" ".join(prompts[numbers[index]].split())[:SHOWN] for index in (own, earlier))
        dropped.setdefault(numbers[own], (reason, f"{text} ~ {other} ({similarity:.2f})"))
