"""`rlhf data filter`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.cli.parser import Command
from rlhf.config.flag_values import similarity
from rlhf.config.flags import add_flags, fill

METHODS = {"cosine": 0.5, "minhash": 0.7}  # with their default thresholds
LANGUAGES = {"ko": 0.3}  # a Korean question about two English names has 0.4
EXAMPLES = 3  # of each reason on the terminal; the manifest has more
LANGUAGE = (
    "drop rows where less than SHARE of the letters of the prompt, or of the answer to learn, is Hangul "
    "(default share: 0.3)"
)
DEDUP = (
    "drop prompts with similarity T or more to an earlier kept prompt: cosine (exact, up to 200,000 rows; T 0.5) or "
    "minhash (Jaccard of character 3-grams, for more rows; T 0.7)"
)
VECTORIZER = (
    "of cosine: TF-IDF of character 2-3-grams, or the filter of 2023: of words, compared with every earlier prompt of "
    "the file, dropped ones too (default: %(default)s)"
)


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.curate.filter.command import FilterOptions

    parser.add_argument("--in", dest="source", required=True, metavar="FILE", help="JSONL, JSON, CSV or demo:NAME")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSONL file to write")
    add_flags(parser, FilterOptions, only=("clean", "min_chars", "max_tokens", "tokenizer"))
    nothing = ("", 0.0)
    parser.add_argument("--language", type=_language, default=nothing, metavar="ko[:SHARE]", help=LANGUAGE)
    add_flags(parser, FilterOptions, only=("boilerplate", "rude", "personal"))
    parser.add_argument("--dedup", type=_method, default=nothing, metavar="METHOD[:T]", help=DEDUP)
    parser.add_argument("--vectorizer", choices=("char", "vaiv"), default="char", help=VECTORIZER)
    add_flags(parser, FilterOptions, only=("semantic", "semantic_threshold", "on_bad_row"))


def run_data_filter(arguments: argparse.Namespace) -> int:
    """`rlhf data filter`."""
    from rlhf.curate.filter.command import FilterOptions, filter_rows

    method, threshold = arguments.dedup
    dedup = "vaiv" if arguments.vectorizer == "vaiv" else method
    given = {"min_hangul": arguments.language[1], "dedup": dedup, "dedup_threshold": threshold}
    options = fill(FilterOptions, arguments, **given)
    _check(arguments)
    output = filter_rows(arguments.source, arguments.out, options)
    num_rows = output.kept + sum(output.dropped.values())
    sys.stdout.write(f"{output.summary()} (of {num_rows})\n")
    for reason, number in output.dropped.items():
        examples = output.examples.get(reason, [])[:EXAMPLES]
        sys.stdout.write(f"\n{reason}: {number}\n" if examples else "")
        sys.stdout.writelines(f"  {' '.join(example.split())}\n" for example in examples)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises DataError for flags that need one another, and when no filter is named."""
    from rlhf.errors import DataError

    if bool(arguments.max_tokens) != bool(arguments.tokenizer):
        raise DataError("--max-tokens and --tokenizer go together", fix="--max-tokens 512 --tokenizer DIR")
    if arguments.vectorizer == "vaiv" and arguments.dedup[0] != "cosine":
        raise DataError("--vectorizer vaiv belongs to a cosine", fix="--dedup cosine:0.5 --vectorizer vaiv")
    names = ("clean", "min_chars", "max_tokens", "boilerplate", "rude", "pii", "semantic")
    if not any(getattr(arguments, name) for name in names) and not arguments.dedup[0] and not arguments.language[0]:
        raise DataError("no filter is named", fix="--min-chars 16 --dedup cosine:0.5; all of them: --help")


def _named(text: str, defaults: dict[str, float]) -> tuple[str, float]:
    name, separator, number = text.partition(":")
    if name not in defaults:
        raise argparse.ArgumentTypeError(f"{text!r}; expected one of {', '.join(defaults)}, then :NUMBER if any")
    return name, similarity(number) if separator else defaults[name]


def _method(text: str) -> tuple[str, float]:
    return _named(text, METHODS)


def _language(text: str) -> tuple[str, float]:
    return _named(text, LANGUAGES)


COMMAND = Command(
    "filter",
    "drop rows: short, long, repeated, foreign, rude, personal, boilerplate",
    run_data_filter,
    _flags,
    description="Copies the rows of a data file that pass every filter named. Filters run in the order below, and a "
    "row is counted under the first that drops it. OUT.manifest.json holds the counts with examples. The prompt of a "
    "row is everything before the answer, without the system turn.",
    epilog="example: rlhf data filter --in prompts.jsonl --out kept.jsonl --min-chars 16 --dedup cosine:0.5\n"
    "the filter of 2023, row for row: --min-chars 16 --dedup cosine:0.5 --vectorizer vaiv",
)
