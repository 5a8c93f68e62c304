"""What the start of a run proves of its export: names, shapes, ties and room, on models that could not be saved too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, GPTNeoXForCausalLM

from rlhf.artifacts.export_proof import export_shapes, plain_name, prove_export
from rlhf.config.sections import LoraSection
from rlhf.engine.shared_parameters import every_name
from rlhf.errors import ArtifactError, ModelError
from rlhf.models.adapters import add_lora
from rlhf.models.loading import PackedCausalLM, load_causal_lm, load_scalar_model


@pytest.fixture
def tied() -> PackedCausalLM:
    size = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 20}
    return PackedCausalLM(GPT2LMHeadModel(GPT2Config(**size)))


def stored_bytes(folder: Path) -> int:
    with safe_open(str(folder / "model.safetensors"), "pt") as file:
        return sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118 - not a dictionary


def test_a_parameter_has_all_its_names(tied):
    named = every_name(tied.model)
    assert [names for _, names in named if len(names) > 1] == [("transformer.wte.weight", "lm_head.weight")]
    assert len(named) == len(list(tied.model.parameters()))


def test_the_size_is_that_of_the_file(tied, tiny_neox, tmp_path):
    tied.model.save_pretrained(tmp_path)
    for live, folder in ((tied, tmp_path), (load_causal_lm(str(tiny_neox)), tiny_neox)):
        size = stored_bytes(folder)
        said = prove_export(live, tmp_path, dtype="float32", free=size)
        assert f"{size / 2**20:.1f} MiB in float32" in said
        with pytest.raises(ArtifactError, match="are free at") as caught:
            prove_export(live, tmp_path, dtype="float32", free=size - 1)
        assert caught.value.where == "run.dir"
        prove_export(live, tmp_path, dtype="bfloat16", free=size // 2)


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_adapters_are_no_part_of_the_names(variant, tiny_neox, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    before = export_shapes(live.model)
    add_lora(live, LoraSection.model_validate({"rank": 2, "variant": variant}))
    assert export_shapes(live.model) == before
    prove_export(live, tmp_path, dtype="float32")


def test_the_head_of_an_adapted_classifier_has_its_plain_name(tiny_neox, tmp_path):
    live = load_scalar_model(str(tiny_neox), new_head=True)
    add_lora(live, LoraSection.model_validate({"rank": 2}))
    assert "score.weight" in export_shapes(live.model).shapes
    prove_export(live, tmp_path, dtype="float32")


def test_plain_names():
    assert plain_name("base_model.model.gpt_neox.layers.0.mlp.base_layer.weight") == "gpt_neox.layers.0.mlp.weight"
    assert plain_name("base_model.model.score.modules_to_save.default.weight") == "score.weight"
    assert plain_name("lm_head.weight") == "lm_head.weight"


def test_a_configuration_of_another_size_is_refused(tied, tmp_path):
    tied.model.config.vocab_size = 21
    with pytest.raises(ModelError, match=r"lm_head.weight: \[20, 8\], expected \[21, 8\]") as caught:
        prove_export(tied, tmp_path, dtype="float32")
    assert caught.value.where == "start of the stage"


def test_a_configuration_that_ties_other_weights_is_refused(tied, tmp_path):
    tied.model.config.tie_word_embeddings = False
    with pytest.raises(ModelError, match="ties other weights"):
        prove_export(tied, tmp_path, dtype="float32")


def test_weights_shared_without_a_declaration_are_refused(tied, tmp_path):
    """Every reader would load two parameters where training had one."""
    block = tied.model.transformer.h[0]
    block.ln_2.weight = block.ln_1.weight
    with pytest.raises(ModelError, match=r"ln_1.weight, .*ln_2.weight"):
        prove_export(tied, tmp_path, dtype="float32")


class SilentConfig(GPT2Config):
    model_type = "silent"


class SilentlyTied(GPT2LMHeadModel):
    """An architecture of somebody's own that ties its head, and does not say so to transformers."""

    config_class = SilentConfig
    _tied_weights_keys = None

    def __init__(self, config: SilentConfig) -> None:
        super().__init__(config)
        self.lm_head.weight = self.transformer.wte.weight


def test_an_architecture_that_ties_in_silence_is_refused(tmp_path):
    """transformers saves no parameter of two names that it does not know to be one."""
    AutoModelForCausalLM.register(SilentConfig, SilentlyTied, exist_ok=True)
    size = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 20, "tie_word_embeddings": False}
    live = PackedCausalLM(SilentlyTied(SilentConfig(**size)))
    with pytest.raises(RuntimeError, match="shared tensors"):
        live.model.save_pretrained(tmp_path / "as-it-is")
    with pytest.raises(ModelError, match="does not declare it"):
        prove_export(live, tmp_path, dtype="float32")


def test_a_weight_that_the_architecture_lacks_is_refused(tiny_neox, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    assert isinstance(live.model, GPTNeoXForCausalLM)
    live.model.gpt_neox.extra = nn.Linear(2, 2, bias=False)
    with pytest.raises(ModelError, match=r"gpt_neox.extra.weight: \[2, 2\], expected absent"):
        prove_export(live, tmp_path, dtype="float32")


def test_nothing_is_written(tied, tmp_path):
    with torch.no_grad():
        prove_export(tied, tmp_path, dtype="float32")
    assert list(tmp_path.iterdir()) == []
