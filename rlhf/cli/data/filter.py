"""`rlhf data filter`."""

from __future__ import annotations

import argparse

from rlhf.cli.flag_types import similarity
from rlhf.cli.parser import Commands

METHODS = {"cosine": 0.5, "minhash": 0.7}  # with their default thresholds
LANGUAGES = {"ko": 0.3}  # a Korean question about two English names has 0.4


def add(commands: Commands) -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "filter",
        help="leave rows out: short, long, repeated, foreign, rude, personal, boilerplate",
        description="Copies the rows of a data file that pass every filter named. Filters run in the order below, "
        "and a row counts under the first that drops it. OUT.manifest.json holds the counts with examples. "
        "The prompt of a row is all that is said before the answer, without the system's turn.",
        epilog="example: rlhf data filter --in prompts.jsonl --out kept.jsonl --min-chars 16 --dedup cosine:0.5\n"
        "the filter of 2023, row for row: --min-chars 16 --dedup cosine:0.5 --vectorizer vaiv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--in", dest="source", required=True, metavar="FILE", help="JSONL, JSON, CSV or demo:NAME")
    parser.add_argument("--out", required=True, metavar="FILE", help="JSONL file to write")
    _add_row_filters(parser)
    _add_comparisons(parser)
    parser.add_argument(
        "--on-bad-row", choices=("error", "skip"), default="error", help="at a bad row (default: %(default)s)"
    )
    parser.set_defaults(handler=run_data_filter)


def _add_row_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clean",
        action="store_true",
        help="take special tokens (<|endoftext|>), invisible and control characters out of texts, before any filter",
    )
    parser.add_argument(
        "--min-chars",
        type=_at_least_one,
        default=0,
        metavar="N",
        help="drop prompts with fewer than N characters that are not whitespace (2023: 16)",
    )
    parser.add_argument(
        "--max-tokens",
        type=_at_least_one,
        default=0,
        metavar="N",
        help="drop rows whose prompt and longest answer have more than N tokens, without a template",
    )
    parser.add_argument("--tokenizer", default="", metavar="DIR", help="model folder whose tokenizer counts")
    parser.add_argument(
        "--language",
        type=_language,
        default=("", 0.0),
        metavar="ko[:SHARE]",
        help="drop rows where less than SHARE of the letters of the prompt, or of the answer to learn, is Hangul "
        "(default share: 0.3)",
    )
    parser.add_argument(
        "--boilerplate",
        action="store_true",
        help='drop answers to learn that refuse or say "저는 AI 언어 모델이라…"; in files of prompts, such prompts',
    )
    parser.add_argument(
        "--rude",
        choices=("prompt", "answer", "any"),
        default="",
        help="drop rows with a rude word in the prompt, the answer to learn, or either",
    )
    parser.add_argument(
        "--pii",
        choices=("drop", "mask"),
        default="",
        help="personal information (phone, e-mail, address) in any text: drop the row, or put [전화번호] there",
    )


def _add_comparisons(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dedup",
        type=_method,
        default=("", 0.0),
        metavar="METHOD[:T]",
        help="drop prompts with similarity T or more to an earlier kept prompt: cosine (exact, up to 200,000 rows; "
        "T 0.5) or minhash (Jaccard of character 3-grams, for more rows; T 0.7)",
    )
    parser.add_argument(
        "--vectorizer",
        choices=("char", "vaiv"),
        default="char",
        help="of cosine: TF-IDF of character 2-3-grams, or the filter of 2023: of words, compared with every earlier "
        "prompt of the file, dropped ones too (default: %(default)s)",
    )
    parser.add_argument(
        "--semantic", default="", metavar="DIR", help="drop prompts whose embedding by this encoder repeats a kept one"
    )
    parser.add_argument(
        "--semantic-threshold",
        type=similarity,
        default=0.85,
        metavar="T",
        help="cosine of mean-centred embeddings (default: %(default)s)",
    )


def run_data_filter(arguments: argparse.Namespace) -> int:
    """`rlhf data filter`."""
    from pathlib import Path

    from rlhf.curate.filter.command import FilterOptions, run
    from rlhf.errors import DataError

    method, threshold = arguments.dedup
    if arguments.vectorizer == "vaiv" and method != "cosine":
        raise DataError("--vectorizer vaiv belongs to a cosine", fix="--dedup cosine:0.5 --vectorizer vaiv")
    options = FilterOptions(
        source=arguments.source,
        out=Path(arguments.out),
        clean=arguments.clean,
        min_chars=arguments.min_chars,
        max_tokens=arguments.max_tokens,
        tokenizer=arguments.tokenizer,
        min_hangul=arguments.language[1],
        boilerplate=arguments.boilerplate,
        rude=arguments.rude,
        personal=arguments.pii,
        dedup="vaiv" if arguments.vectorizer == "vaiv" else method,
        dedup_threshold=threshold,
        semantic=arguments.semantic,
        semantic_threshold=arguments.semantic_threshold,
        on_bad_row=arguments.on_bad_row,
    )
    return run(options)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number above 0")
    return int(text)


def _named(text: str, defaults: dict[str, float]) -> tuple[str, float]:
    name, separator, number = text.partition(":")
    if name not in defaults:
        raise argparse.ArgumentTypeError(f"{text!r}; expected one of {', '.join(defaults)}, then :NUMBER if any")
    return name, similarity(number) if separator else defaults[name]


def _method(text: str) -> tuple[str, float]:
    return _named(text, METHODS)


def _language(text: str) -> tuple[str, float]:
    return _named(text, LANGUAGES)
