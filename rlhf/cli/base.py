"""`rlhf base`: base models."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rlhf.cli.parser import Command, Group
from rlhf.config.flags import add_flags, fill


def _flags(parser: argparse.ArgumentParser) -> None:
    from rlhf.demo.options import TinySize

    files = "data files, .txt, or demo:answers_train"
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help=files)
    parser.add_argument("--out", required=True, metavar="DIR", help="model folder to write")
    add_flags(parser, TinySize, epochs=1.0)
    seed = "seed of the weights and of the order of text (default: %(default)s)"
    parser.add_argument("--seed", type=int, default=17, metavar="N", help=seed)


def run_base_tiny(arguments: argparse.Namespace) -> int:
    """`rlhf base tiny`."""
    from rlhf.demo.options import TinySize
    from rlhf.demo.tiny_base import make_tiny_base

    loss = make_tiny_base(arguments.data, arguments.out, size=fill(TinySize, arguments), seed=arguments.seed)
    sys.stderr.write(f"{arguments.out}: last training loss {loss:.3f}\n")
    return 0


TINY = Command(
    "tiny", "a tiny Polyglot-shaped GPT-NeoX, trained on the spot on any text", run_base_tiny, _flags, files=("data",)
)


def _gguf_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a .gguf file, quantised or not")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="model folder to write")
    kind = "data type that the blocks are unpacked to (default: %(default)s)"
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help=kind)


def run_base_gguf(arguments: argparse.Namespace) -> int:
    """`rlhf base gguf`."""
    from rlhf.artifacts.from_gguf import convert_gguf

    convert_gguf(arguments.file, arguments.out, dtype=arguments.dtype, say=_say)
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


GGUF = Command(
    "gguf",
    "a GGUF file as a Hugging Face folder, compared with the file",
    run_base_gguf,
    _gguf_flags,
    description="transformers unpacks the blocks of the file. What is written is loaded again: its logits on a Korean "
    "text must be those of the file's weights, and its tokenizer must give that text back. Needs the package gguf "
    "(pip install --no-deps gguf). The model keeps its license, which is printed where the file names it.",
)
GROUP = Group("base", "base models", (TINY, GGUF))
