"""Base models from GGUF files: transformers unpacks the blocks, and what was written is compared with the file."""

from __future__ import annotations

import json
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.artifacts.files import scratch_beside, sha256_of, write_json
from rlhf.data.tokenizer import HANGUL_PROBE, require_hangul
from rlhf.errors import ArtifactError, ModelError
from rlhf.models.loading import DTYPES

MAGIC = b"GGUF"
RECORD = "gguf.json"
Weights = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class GgufContent:
    """What a GGUF file says about itself.

    Attributes:
        stored: number of tensors by the type that they are stored in, such as Q4_K.
        num_parameters: elements of all its tensors.
        license, name: as the file says; "" where it says nothing.
    """

    file: str
    architecture: str
    name: str
    license: str
    num_parameters: int
    stored: dict[str, int]

    def summary(self) -> str:
        kinds = ", ".join(f"{number} {kind}" for kind, number in self.stored.items())
        said = self.license or "the file does not say; ask where it comes from"
        return (
            f"{self.file}: {self.name or 'unnamed'}, {self.architecture}, {self.num_parameters / 1e6:.0f} M parameters "
            f"({kinds})\nlicense: {said}"
        )


def read_content(path: Path) -> GgufContent:
    """Reads the head of a file, not its weights.

    Raises: ModelError when the package `gguf` is missing, for a file that is none, and for one that is cut short.
    """
    if find_spec("gguf") is None:
        raise ModelError("the package gguf is not installed", where=str(path), fix="pip install --no-deps 'gguf>=0.19'")
    if not path.is_file():
        raise ModelError("no such file", where=str(path), expected="a .gguf file")
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ModelError("not a GGUF file", where=str(path), expected=f"a file that begins with {MAGIC.decode()}")
    from gguf import GGUFReader

    try:
        reader: Any = GGUFReader(path)
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise ModelError(f"cannot be read: {error}", where=str(path), fix="download the file again") from error

    def said(key: str) -> str:
        field = reader.get_field(f"general.{key}")
        return "" if field is None else str(field.contents())

    kinds = Counter(str(tensor.tensor_type.name) for tensor in reader.tensors)
    size = sum(int(tensor.n_elements) for tensor in reader.tensors)
    terms = said("license") or said("license.name") or said("license.link")
    return GgufContent(path.name, said("architecture"), said("name"), terms, size, dict(kinds.most_common()))


def convert_gguf(path: Path, out: Path, *, dtype: Weights = "float32", say: Callable[[str], object] = print) -> None:
    """Writes a GGUF file as a Hugging Face folder, with RECORD beside the weights.

    The folder is loaded again before it gets its name: logits of a Korean text must be those of the file's weights to
    the bit, and its tokenizer must give the file's ids and that text back.

    Args:
        path: a GGUF file of an architecture that transformers can read.
        out: a folder that is not there yet.
        dtype: of the weights written; blocks are unpacked to it.

    Raises:
        ModelError: for a file that cannot be read, or of an unknown architecture.
        TokenizerError: for one whose tokenizer does not keep Hangul.
        ArtifactError: for a folder that is there already, too small a disk, and a folder that differs from the file.
    """
    content = read_content(path)
    say(content.summary())
    if out.exists():
        raise ArtifactError("exists already", where=str(out), fix="give --out a folder that is not there")
    _require_room(content.num_parameters * DTYPES[dtype].itemsize, out)
    model, tokenizer = _loaded(path, content, dtype)
    require_hangul(tokenizer, str(path), fix="use the tokenizer of the folder that the file was made from")
    with scratch_beside(out, "gguf") as folder:
        _plain(model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _require_same(folder, model, tokenizer)
        record = {"sha256": sha256_of(path), "dtype": dtype, "transformers": transformers.__version__}
        write_json(folder / RECORD, {**asdict(content), **record})
        folder.rename(out)
    say(f"{out}: {dtype}; logits and token ids are those of the file")
    if not tokenizer.chat_template:
        say("no chat template in the file: set data.template in each stage")


def _require_room(size: int, out: Path) -> None:
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        problem = f"needs {size / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
        raise ArtifactError(problem, where=str(out), fix="use another disk, or --dtype bfloat16")


def _loaded(path: Path, content: GgufContent, dtype: Weights) -> tuple[Any, Any]:
    """The model of a file in dense weights, and its tokenizer."""
    more: dict[str, Any] = {}
    if hasattr(transformers, "GgufConfig"):  # later versions keep the blocks where a kernel can read them
        more["quantization_config"] = transformers.GgufConfig(gguf_file=path.name, dequantize=True)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=DTYPES[dtype], **more
        ).eval()
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except (ValueError, KeyError, ImportError, OSError, RuntimeError, json.JSONDecodeError) as error:
        raise ModelError(
            f"transformers {transformers.__version__} cannot load it: {error}",
            where=str(path),
            expected=f"an architecture that it reads from GGUF; this file is {content.architecture!r}",
            fix="use the Hugging Face folder that the file was made from",
        ) from error
    return model, tokenizer


@torch.no_grad()
def _logits(model: Any, tokenizer: Any) -> Tensor:
    ids = torch.tensor([tokenizer(HANGUL_PROBE)["input_ids"]])
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def _plain(model: Any) -> Any:
    """The same weights in a model that knows nothing of GGUF, which transformers does not save."""
    config = type(model.config).from_dict(model.config.to_dict())
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._name_or_path = ""
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    plain.load_state_dict(model.state_dict(), strict=True, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def _require_same(folder: Path, model: Any, tokenizer: Any) -> None:
    saved_tokenizer = AutoTokenizer.from_pretrained(folder)
    if saved_tokenizer(HANGUL_PROBE)["input_ids"] != tokenizer(HANGUL_PROBE)["input_ids"]:
        raise ArtifactError("the tokenizer written gives other ids than that of the file", where=str(folder))
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype).eval()
    expected, found = _logits(model, tokenizer), _logits(saved, tokenizer)
    if not torch.equal(found, expected):
        gap = (found.float() - expected.float()).abs().max()
        raise ArtifactError(f"the folder's logits differ from the file's by up to {gap:.3g}", where=str(folder))
