"""The attention kernel of every machine: what decides is given, so that each branch runs on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import Gemma2Config, GPTNeoXConfig, LlamaConfig, MistralConfig, Qwen2Config

from rlhf.errors import ConfigError
from rlhf.models.attention import PACKED_SDPA, PACKED_VARLEN
from rlhf.models.attention_choice import KernelSupport, choose_attention, head_counts, head_size, require_packable
from rlhf.models.loading import load_causal_lm

# The arguments of torch.nn.attention.varlen.varlen_attn by torch version.
POSITIONAL = {"query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"}
TORCH = {
    "2.9": set(),
    "2.10": {*POSITIONAL, "is_causal", "return_aux"},
    "2.11": {*POSITIONAL, "return_aux", "scale", "window_size"},
    "2.12": {*POSITIONAL, "return_aux", "scale", "window_size", "enable_gqa"},
}
A100, T4, RTX_4090, H100, B200, RTX_5090 = (8, 0), (7, 5), (8, 9), (9, 0), (10, 0), (12, 0)


def support(torch_version: str = "2.12", *, device: str = "cuda", capability: tuple[int, int] = A100) -> KernelSupport:
    return KernelSupport(device, capability if device == "cuda" else None, frozenset(TORCH[torch_version]))


def neox(size: int = 128) -> GPTNeoXConfig:
    return GPTNeoXConfig(hidden_size=4 * size, num_attention_heads=4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("version", ["2.11", "2.12"])
@pytest.mark.parametrize("capability", [A100, RTX_4090, H100, B200, RTX_5090])
@pytest.mark.parametrize("wanted", ["auto", "varlen"])
def test_varlen_runs_in_half_precision_on_a_gpu_with_a_torch_that_has_it(dtype, version, capability, wanted):
    choice = choose_attention(wanted, neox(), dtype, support(version, capability=capability))
    assert choice.kind == "varlen"
    assert "cuda" in choice.reason
    assert "head size 128" in choice.reason


OBSTACLES = {
    "a CPU": (neox(), torch.bfloat16, support(device="cpu"), "computes on cpu"),
    "float32": (neox(), torch.float32, support(), "computes in float32"),
    "torch 2.9": (neox(), torch.bfloat16, support("2.9"), "does not exist; torch 2.11 is the first"),
    "torch 2.10": (neox(), torch.bfloat16, support("2.10"), "does not take scale and window_size"),
    "an old GPU": (neox(), torch.float16, support(capability=T4), "compute capability 8.0, and this GPU has 7.5"),
    "wide heads": (neox(264), torch.bfloat16, support(), "up to 256 that are multiples of 8, and the model's is 264"),
    "odd heads": (neox(20), torch.bfloat16, support(), "the model's is 20"),
    "a consumer card": (neox(256), torch.bfloat16, support(capability=RTX_4090), "up to 192"),
    "a newer consumer card": (neox(256), torch.bfloat16, support(capability=RTX_5090), "up to 192"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_auto_takes_sdpa_elsewhere_and_says_why(name):
    config, dtype, here, reason = OBSTACLES[name]
    choice = choose_attention("auto", config, dtype, here)
    assert choice.kind == "sdpa"
    assert reason in choice.reason


@pytest.mark.parametrize("name", OBSTACLES)
def test_varlen_is_never_replaced(name):
    config, dtype, here, reason = OBSTACLES[name]
    with pytest.raises(ConfigError, match=r"model\.attention") as caught:
        choose_attention("varlen", config, dtype, here)
    assert reason in caught.value.problem
    assert caught.value.where == "model.attention"
    assert "model.attention=sdpa" in caught.value.fix
    assert "torch 2.11 or later" in caught.value.expected


def test_sdpa_is_taken_where_it_is_asked_for():
    assert choose_attention("sdpa", neox(), torch.bfloat16, support()).kind == "sdpa"


def test_what_this_torch_has_is_read_from_the_kernel_itself(monkeypatch):
    from torch.nn.attention import varlen

    assert {"scale", "window_size"} <= KernelSupport.on(torch.device("cpu")).arguments
    monkeypatch.setattr(varlen, "varlen_attn", lambda query, key, *, is_causal: None)
    assert KernelSupport.on(torch.device("cpu")) == KernelSupport("cpu", None, frozenset({"query", "key", "is_causal"}))
    monkeypatch.delattr(varlen, "varlen_attn")
    assert KernelSupport.on(torch.device("cpu")).arguments == frozenset()


def test_head_sizes_and_counts():
    grouped = LlamaConfig(hidden_size=64, num_attention_heads=8, num_key_value_heads=2)
    assert (head_size(grouped), head_counts(grouped)) == (8, (8, 2))
    assert (head_size(neox()), head_counts(neox())) == (128, (4, 4))
    apart = LlamaConfig(hidden_size=64, num_attention_heads=8, num_key_value_heads=2, head_dim=32)
    assert head_size(apart) == 32
    latent = SimpleNamespace(v_head_dim=64, head_dim=96)  # as DeepSeek's: values are narrower than keys
    assert head_size(SimpleNamespace(get_text_config=lambda: latent)) is None


def test_a_sliding_window_shorter_than_the_longest_sequence_is_refused_with_the_key_that_limits_it():
    config = MistralConfig(sliding_window=512)
    require_packable(config, 512, key="data.max_length")
    with pytest.raises(
        ConfigError, match="up to 513 tokens are longer than the model's sliding window of 512"
    ) as caught:
        require_packable(config, 513, key="data.max_length")
    assert caught.value.where == "data.max_length"
    assert "data.max_length=512" in caught.value.fix


def test_a_window_that_no_layer_uses_is_no_obstacle():
    require_packable(Qwen2Config(sliding_window=16, use_sliding_window=False), 100, key="data.max_length")
    require_packable(neox(), 10**6, key="data.max_length")


def test_capped_scores_are_refused():
    with pytest.raises(ConfigError, match="Gemma2Config caps its attention scores") as caught:
        require_packable(Gemma2Config(), 1, key="data.max_length")
    assert caught.value.where == "model.attention"


@pytest.mark.parametrize(("attention", "kernel"), [("auto", PACKED_SDPA), ("sdpa", PACKED_SDPA)])
def test_a_loaded_model_has_the_chosen_kernel(tiny_neox: Path, attention, kernel):
    model = load_causal_lm(str(tiny_neox), attention=attention, device=torch.device("cpu"))
    assert model.model.config._attn_implementation == kernel


def test_a_model_loaded_for_a_gpu_has_varlen(tiny_neox: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(KernelSupport, "on", lambda device: support(device=device.type))
    half = {"dtype": "bfloat16", "device": torch.device("cuda")}
    assert load_causal_lm(str(tiny_neox), **half).model.config._attn_implementation == PACKED_VARLEN
    assert load_causal_lm(str(tiny_neox), dtype="bfloat16").model.config._attn_implementation == PACKED_SDPA


def test_varlen_on_a_cpu_is_refused_before_weights_are_read(tmp_path: Path):
    neox().save_pretrained(tmp_path)  # there are no weights
    with pytest.raises(ConfigError, match="computes on cpu"):
        load_causal_lm(str(tmp_path), attention="varlen", dtype="bfloat16")


@pytest.fixture
def cudnn_restored() -> Iterator[None]:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.usefixtures("cudnn_restored")
def test_cudnn_is_off_unless_it_is_asked_for(tiny_neox: Path):
    torch.backends.cuda.enable_cudnn_sdp(True)
    load_causal_lm(str(tiny_neox))
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    load_causal_lm(str(tiny_neox), cudnn_attention=True)
    assert torch.backends.cuda.cudnn_sdp_enabled()
