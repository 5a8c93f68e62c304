"""`rlhf data filter`: drops rows of a data file, each for one stated reason.

The filters run in the order of `FilterOptions`: first those that look at a row alone, then the comparisons with
earlier prompts. A row counts under the first filter that drops it. Kept rows stay as they are, unknown keys
included, apart from texts changed by `clean` or `personal="mask"`.

Rows are compared only with rows that every filter before the comparison kept; `vaiv` alone compares with every
earlier prompt of the file, as the filter of 2023 did.
"""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rlhf.config.flag_values import BAD_ROW, parse_positive, parse_similarity
from rlhf.config.flags import flag
from rlhf.curate.filter import checks
from rlhf.curate.filter.row_checks import BAD_ROW_REASON, RowRules, verdicts
from rlhf.curate.filter.stored import Drops, Some, StoredTexts
from rlhf.curate.output import Output, progress
from rlhf.curate.row_texts import texts_of, with_texts_changed
from rlhf.curate.text_faults import cleaned
from rlhf.data.embedded import data_path
from rlhf.data.readers import NumberedRow, Row, locate, read_rows
from rlhf.data.sources import OnBadRow
from rlhf.errors import DataError

METHODS = {"cosine": 0.5, "minhash": 0.7}  # with their default thresholds
LANGUAGES = {"ko": 0.3}  # a Korean question about two English names has 0.4
NEAR, SAME_MEANING = "near-duplicate", "same meaning"
SHOWN = 90  # characters of each text of a dropped pair
EXAMPLES = 3  # of each reason on the terminal; the manifest has more

REFUSED_EVERY = 10_000  # rows, after which too many for an exact comparison are refused while the file is read
Search = Callable[[Sequence[str]], Mapping[int, Any]]


def parse_language(text: str) -> float:
    """ko or ko:SHARE as the least share of Hangul."""
    return _named_number(text, LANGUAGES)[1]


def parse_dedup(text: str) -> tuple[str, float]:
    """METHOD or METHOD:T as the method and its threshold."""
    return _named_number(text, METHODS)


def _named_number(text: str, defaults: Mapping[str, float]) -> tuple[str, float]:
    name, separator, number = text.partition(":")
    if name not in defaults:
        raise ArgumentTypeError(f"{text!r}; expected one of {', '.join(defaults)}, then :NUMBER if any")
    return name, parse_similarity(number) if separator else defaults[name]


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """What is dropped or changed, in the order of the filters; an empty value switches a filter off."""

    source: str = flag(..., "JSONL, JSON, CSV or demo:NAME", name="--in", metavar="FILE")
    out: Path = flag(..., "JSONL file to write", metavar="FILE")
    clean: bool = flag(
        False,
        "first remove special tokens (<|endoftext|>), invisible and control characters from texts, and drop rows in "
        "which nothing is left of a text",
    )
    min_chars: int = flag(
        0,
        "drop prompts with fewer than N characters that are not whitespace (2023: 16)",
        metavar="N",
        parse=parse_positive,
    )
    max_tokens: int = flag(
        0,
        "drop rows whose prompt and longest answer have more than N tokens, without a template",
        metavar="N",
        parse=parse_positive,
    )
    tokenizer: str = flag("", "model folder with the tokenizer that counts", metavar="DIR")
    min_hangul: float = flag(
        0.0,
        "drop rows where less than SHARE of the letters of the prompt, or of a learnt answer, is Hangul "
        "(default share: 0.3)",
        name="--language",
        metavar="ko[:SHARE]",
        parse=parse_language,
    )
    boilerplate: bool = flag(
        False,
        'drop rows whose learnt answer refuses or says "저는 AI 언어 모델이라…"; in files of prompts, such prompts',
    )
    rude: Literal["", "prompt", "answer", "any"] = flag(
        "", "drop rows with a rude word in the prompt, in a learnt answer, or in either"
    )
    personal: Literal["", "drop", "mask"] = flag(
        "",
        "personal information (phone, e-mail, address) in any text: drop the row, or write [전화번호] instead",
        name="--pii",
    )
    dedup: tuple[str, float] = flag(
        ("", 0.0),
        "drop prompts with a similarity of at least T to an earlier kept prompt: cosine (exact, up to 200,000 rows; "
        "T 0.5) or minhash (Jaccard of character 3-grams, for more rows; T 0.7)",
        metavar="METHOD[:T]",
        parse=parse_dedup,
    )
    vectorizer: Literal["char", "vaiv"] = flag(
        "char",
        "vectors of the cosine: TF-IDF of character 2-3-grams, or the filter of 2023: TF-IDF of words, compared with "
        "every earlier prompt of the file, dropped ones too",
    )
    semantic: str = flag(
        "", "drop prompts that repeat a kept one by the embeddings of the encoder in this folder", metavar="DIR"
    )
    semantic_threshold: float = flag(
        0.85, "cosine of mean-centred embeddings from which a prompt is a repeat", metavar="T", parse=parse_similarity
    )
    on_bad_row: OnBadRow = flag("error", BAD_ROW)

    def __post_init__(self) -> None:
        if bool(self.max_tokens) != bool(self.tokenizer):
            raise DataError("--max-tokens and --tokenizer go together", fix="--max-tokens 512 --tokenizer DIR")
        if self.vectorizer == "vaiv" and self.dedup[0] != "cosine":
            raise DataError("--vectorizer vaiv belongs to a cosine", fix="--dedup cosine:0.5 --vectorizer vaiv")

    @property
    def search(self) -> str:
        """The search for near-duplicates, a key of `repeats.SEARCHES`; "" for none."""
        return "vaiv" if self.vectorizer == "vaiv" else self.dedup[0]

    @property
    def first_is_exact(self) -> bool:
        """Whether the first comparison is exact, and so takes a limited number of rows."""
        return self.search in ("cosine", "vaiv") or bool(self.semantic and not self.search)

    def enabled(self) -> dict[str, Any]:
        """The options that are switched on, for the manifest."""
        values = asdict(self) | {"dedup": self.search, "dedup_threshold": self.dedup[1]}
        return {name: value for name, value in values.items() if value and name not in ("source", "out", "vectorizer")}

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
        rules, comparisons = rules_of(options), dict(_comparisons(options))
        what = RowRules(partial(rules_of, options), partial(_prepared, options), path, options.on_bad_row)
        output.dropped = dict.fromkeys([*rules, *comparisons], 0)  # every filter is listed, in order
        drops = Drops([*rules, *comparisons, BAD_ROW_REASON])
        with closing(StoredTexts(options.out.parent)) as prompts:
            for verdict in progress(verdicts(read_rows(locate(path)), what), "reading"):
                drops.add(verdict.reason, verdict.evidence)
                if comparisons:
                    prompts.append(verdict.prompt)
                if options.first_is_exact and len(drops) % REFUSED_EVERY == 0:
                    _require_comparable(options, drops)
            for reason, search in comparisons.items():
                _drop_repeats(prompts, drops, reason, search, everyone=reason == NEAR and options.search == "vaiv")
        for number, read in enumerate(progress(read_rows(locate(path)), "writing", len(drops))):
            _, row = _prepared(options, read, output)
            if found := drops.of(number):
                output.drop(*found)
            else:
                assert not isinstance(row, DataError)
                output.write(_masked(row, output) if options.personal == "mask" else row)
    return output


def _prepared(options: FilterOptions, numbered: NumberedRow, output: Output | None = None) -> NumberedRow:
    """A row, cleaned if asked for; the number of changed texts is counted in `output`."""
    line, row = numbered
    return line, _cleaned_row(row, output) if options.clean and not isinstance(row, DataError) else row


def _cleaned_row(row: Row, output: Output | None) -> Row:
    """The row with its texts cleaned; a row of which a text would vanish stays, to be dropped by `checks.emptied`."""
    texts = [text for _, text in texts_of(row)]
    changed = sum(text.strip() != cleaned(text) for text in texts)
    if not changed or checks.loses_a_text(row):
        return row
    if output is not None:
        output.count("texts cleaned", changed)
    return with_texts_changed(row, cleaned)


def rules_of(options: FilterOptions) -> dict[str, checks.Check]:
    """The enabled filters that look at a row alone, by their reasons, in order."""
    return dict(_rules(options))


def _rules(options: FilterOptions) -> Iterator[tuple[str, checks.Check]]:
    """(reason, check) of each enabled filter that looks at a row alone, in order."""
    if options.clean:
        yield "nothing left of a text", checks.emptied
    if options.min_chars:
        yield f"fewer than {options.min_chars} characters", checks.shorter_than(options.min_chars)
    if options.max_tokens:
        yield f"more than {options.max_tokens} tokens", checks.longer_than(options.max_tokens, options.tokenizer)
    if options.min_hangul:
        yield f"less than {options.min_hangul:g} Hangul", checks.less_hangul_than(options.min_hangul)
    if options.boilerplate:
        yield "boilerplate", checks.with_boilerplate
    if options.rude:
        yield f"rude word ({options.rude})", checks.rude_in(options.rude)
    if options.personal == "drop":
        yield "personal information", checks.with_personal


def _masked(row: Row, output: Output) -> Row:
    from rlhf.curate.privacy import mask_personal

    def mask(text: str) -> str:
        masked, counts = mask_personal(text)
        output.count_all(counts, "masked ")
        return masked

    return with_texts_changed(row, mask)


def _comparisons(options: FilterOptions) -> Iterator[tuple[str, Search]]:
    """(reason, search for repeats) of each enabled comparison of prompts, in order."""
    if not (options.search or options.semantic):
        return
    from rlhf.curate.filter import repeats
    from rlhf.curate.filter.embeddings import embedded

    if options.search:
        search, similarity = repeats.SEARCHES[options.search], options.dedup[1]
        yield NEAR, lambda prompts: search(prompts, similarity)
    if options.semantic:
        folder, threshold = options.semantic, options.semantic_threshold
        yield SAME_MEANING, lambda prompts: repeats.semantic_repeats(embedded(prompts, folder), threshold)


def _require_comparable(options: FilterOptions, drops: Drops) -> None:
    from rlhf.curate.filter.repeats import require_comparable

    require_comparable(drops.num_kept, "--dedup cosine" if options.search else "--semantic")


def _drop_repeats(prompts: StoredTexts, drops: Drops, reason: str, search: Search, *, everyone: bool) -> None:
    """Drops the rows whose prompt repeats an earlier one that was kept (of any, with `everyone`)."""
    numbers = range(len(prompts)) if everyone else drops.kept()
    for own, (earlier, similarity) in sorted(search(Some(prompts, numbers)).items()):
        text, other = (" ".join(prompts[numbers[index]].split())[:SHOWN] for index in (own, earlier))
        drops.drop(numbers[own], reason, f"{text} ~ {other} ({similarity:.2f})")
