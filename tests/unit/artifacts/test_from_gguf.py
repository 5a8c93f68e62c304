"""A GGUF file becomes a folder with its weights, its ids and its word about itself; what cannot be read is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers.normalizers import NFD
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.artifacts import from_gguf
from rlhf.artifacts.from_gguf import convert_gguf, read_content
from rlhf.cli import main
from rlhf.data.tokenizer import HANGUL_PROBE, ChatTokenizer
from rlhf.errors import ArtifactError, ModelError, TokenizerError

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in NAMES:
        return f"{NAMES[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.weight"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key weight in llama.cpp's order of rotary pairs."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(folder: Path, model_folder: Path, tokenizer: Any, *, kind: str = "F32", license: str = "mit") -> Path:
    """The Llama of a folder as llama.cpp would write it."""
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    config, path = model.config, folder / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("작은 모델")
    if license:
        writer.add_license(license)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    rules = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary = tokenizer.get_vocab()
    writer.add_tokenizer_model("gpt2")
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_token_list(tokens)
    special = set(tokenizer.all_special_tokens)
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in rules["merges"]])
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    for name, tensor in model.state_dict().items():
        weight = tensor.float().numpy()
        if "q_proj" in name:
            weight = interleaved(weight, config.num_attention_heads)
        if "k_proj" in name:
            weight = interleaved(weight, config.num_key_value_heads)
        if kind == "F32" or weight.ndim == 1:
            writer.add_tensor(gguf_name(name), weight)
        else:
            blocks = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(gguf_name(name), gguf.quantize(weight, blocks), raw_dtype=blocks)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, chat_tokenizer: ChatTokenizer) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf"), tiny_llama, chat_tokenizer.tokenizer)


@torch.no_grad()
def logits_of(folder: Path, ids: list[int]) -> torch.Tensor:
    logits: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder)(input_ids=torch.tensor([ids])).logits
    return logits


def test_weights_and_ids_are_those_of_the_model_that_the_file_was_made_from(
    file: Path, tiny_llama: Path, chat_tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    said: list[str] = []
    convert_gguf(file, tmp_path / "out", say=said.append)
    ids = chat_tokenizer.tokenizer(HANGUL_PROBE)["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(HANGUL_PROBE)["input_ids"] == ids
    torch.testing.assert_close(logits_of(tmp_path / "out", ids), logits_of(tiny_llama, ids), rtol=1e-5, atol=1e-5)
    assert "작은 모델, llama" in said[0]
    assert "license: mit" in said[0]
    record = json.loads((tmp_path / "out" / "gguf.json").read_text(encoding="utf-8"))
    assert (record["license"], record["dtype"], record["stored"]) == ("mit", "float32", {"F32": 21})


def test_blocks_are_unpacked(tiny_llama: Path, chat_tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    """Q8_0 keeps a weight within half a step, the largest of its block of 32 over 127."""
    file = write_gguf(tmp_path, tiny_llama, chat_tokenizer.tokenizer, kind="Q8_0", license="")
    said: list[str] = []
    convert_gguf(file, tmp_path / "out", say=said.append)
    assert "the file does not say" in said[0]
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    for name, weight in AutoModelForCausalLM.from_pretrained(tiny_llama).state_dict().items():
        if weight.ndim == 1:
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)
            continue
        step = weight.reshape(weight.shape[0], -1, 32).abs().amax(-1, keepdim=True) / 127
        gap = (found[name] - weight).reshape(weight.shape[0], -1, 32).abs()
        assert (gap <= step * 0.51 + 1e-3 * step * 127).all(), name  # the step itself is a float16
        assert gap.max() > 0


def test_a_folder_that_differs_from_the_file_is_not_kept(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = from_gguf._plain

    def damaged(model: Any) -> Any:
        written = plain(model)
        written.lm_head.weight = torch.nn.Parameter(written.lm_head.weight + 1e-3)
        return written

    monkeypatch.setattr(from_gguf, "_plain", damaged)
    with pytest.raises(ArtifactError, match="the folder's logits differ"):
        convert_gguf(file, tmp_path / "out", say=lambda _: None)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_loses_hangul(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = from_gguf._loaded

    def decomposing(*args: Any) -> tuple[Any, Any]:
        model, tokenizer = loaded(*args)
        tokenizer.backend_tokenizer.normalizer = NFD()
        return model, tokenizer

    monkeypatch.setattr(from_gguf, "_loaded", decomposing)
    with pytest.raises(TokenizerError, match="Hangul does not survive") as caught:
        convert_gguf(file, tmp_path / "out", say=lambda _: None)
    assert caught.value.where == str(file)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "problem"), [(b"PK\x03\x04", "not a GGUF file"), (b"GGUF\x03\x00\x00\x00", "cannot be read")]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=problem):
        read_content(path)


def test_a_file_cut_short(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(file.read_bytes()[:-4096])
    with pytest.raises(ModelError, match=r"cannot be read|cannot load it"):
        convert_gguf(path, tmp_path / "out", say=lambda _: None)
    assert not (tmp_path / "out").exists()


def test_an_unknown_architecture(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "grus")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="cannot load it") as caught:
        convert_gguf(path, tmp_path / "out", say=lambda _: None)
    assert "'grus'" in caught.value.expected


def test_the_command_keeps_what_is_there(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    assert main(["base", "gguf", str(file), "--out", str(tmp_path / "out")]) == 1
    assert "exists already" in capsys.readouterr().err
