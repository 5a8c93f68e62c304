"""What is in a published folder beside the weights: adapter, model card, manifest, settings; and the fixed text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig

from rlhf.artifacts.fixed_text import FixedTextOutputs
from rlhf.config.sections import LoraSection
from rlhf.models.adapters import add_lora
from rlhf.models.loading import load_causal_lm
from tests.support.finished_runs import IDS, adapted, finish_run, here, logits, train

# The adapter alone


@pytest.mark.parametrize("num_tokens", [400, 401])  # 401: the vocabulary was extended for padding
def test_an_adapter_is_copied_with_its_tokenizer(num_tokens, base, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(base))
    if num_tokens > 400:
        live.model.resize_token_embeddings(num_tokens, mean_resizing=False)
    add_lora(live, LoraSection(rank=2, alpha=8))
    run = finish_run(tmp_path / "run", train(live), chat_tokenizer, base)
    published = here(run, tmp_path / "out", part="adapter")
    assert published.outcome.difference <= 1e-5
    for name in ("adapter_model.safetensors", "adapter_config.json", "base.json"):
        assert (tmp_path / "out" / name).read_bytes() == (run / "adapter" / name).read_bytes()
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == chat_tokenizer.template
    assert not (tmp_path / "out" / "model.safetensors").exists()
    found: dict = {}
    exec(loading_code(tmp_path / "out"), found)
    with torch.no_grad():
        expected = live.eval().model(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(logits(found["model"]), expected, rtol=1e-5, atol=1e-5)


# What else is in the folder


def loading_code(folder: Path) -> str:
    """The model card's own lines, with the folder's path for its name."""
    block = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return block[1].replace(f'"{folder.name}"', f'"{folder}"')


def test_the_model_card_says_what_it_is(full_run, tmp_path, tiny_neox):
    here(full_run, tmp_path / "out", dtype="float16")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| train | talks | 1,200 | 1,234 | `abababababab` |" in card
    assert "- `train.lr`: `0.00025`" in card
    assert "train.batch_size" not in card  # a default
    assert str(full_run) not in card  # where it was trained says nothing to a reader
    assert "| eval/loss | 3.25 |" in card
    assert "torch 2.13.0" in card
    assert "unknown: check the base's licence" in card
    assert "license:" not in card.split("---")[1]


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        ("---\nlanguage: ko\nlicense: apache-2.0\n---\n# base\n", "Licence of the base: apache-2.0"),
        ("---\nlanguage: ko\n---\nlicense: mit\n", "unknown"),
        ("# base\nlicense: mit\n---\nlicense: mit\n---\n", "unknown"),
        ("---\nlicense: [broken\n---\n", "unknown"),
    ],
)
def test_the_licence_is_that_of_the_bases_front_matter(readme, expected, base, chat_tokenizer, tmp_path):
    (base / "README.md").write_text(readme)
    run = finish_run(tmp_path / "run", load_causal_lm(str(base)), chat_tokenizer, base)
    here(run, tmp_path / "out")
    line = next(line for line in (tmp_path / "out" / "README.md").read_text().splitlines() if "Licence" in line)
    assert expected in line


def test_the_cards_lines_load_and_generate(full_run, tmp_path, capsys):
    here(full_run, tmp_path / "out", dtype="float32")
    code = loading_code(tmp_path / "out")
    assert len(code.splitlines()) == 5
    exec(code, {})
    assert "안녕하세요?" in capsys.readouterr().out


def test_manifest_tokenizer_and_decoding_settings_are_there(full_run, tmp_path, chat_tokenizer):
    here(full_run, tmp_path / "out", dtype="float16")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    entry = manifest.pop("export")
    assert manifest == json.loads((full_run / "model" / "manifest.json").read_text())
    assert (entry["dtype"], entry["part"], entry["run"]) == ("float16", "merged", str(full_run))
    assert 0 < entry["largest_difference"] < 0.2
    settings = GenerationConfig.from_pretrained(tmp_path / "out")
    assert (settings.max_new_tokens, settings.top_k, settings.eos_token_id) == (33, 20, 0)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == chat_tokenizer.template


def test_settings_of_a_merged_run_are_the_runs_not_the_bases(base, chat_tokenizer, tmp_path):
    GenerationConfig(do_sample=True, temperature=0.6, eos_token_id=2).save_pretrained(base)
    run = finish_run(tmp_path / "run", adapted(base), chat_tokenizer, base)
    here(run, tmp_path / "out")
    settings = GenerationConfig.from_pretrained(tmp_path / "out")
    assert (settings.max_new_tokens, settings.temperature, settings.eos_token_id) == (33, 1.0, 0)


# The comparison


def test_fixed_text_outputs_are_read_back_as_they_were_saved(tmp_path):
    saved = FixedTextOutputs(((1, 2, 3), (4, 5)), torch.arange(6.0).reshape(3, 2))
    saved.save(tmp_path / "outputs.pt")
    again = FixedTextOutputs.load(tmp_path / "outputs.pt")
    assert again.sequences == saved.sequences
    assert torch.equal(again.outputs, saved.outputs)
    stored = torch.load(tmp_path / "outputs.pt", weights_only=True)
    assert np.array_equal(stored["outputs"].numpy(), saved.outputs.numpy())
    assert stored["sequences"] == saved.sequences


def test_a_context_shared_by_conversations_counts_once():
    saved = FixedTextOutputs(((1, 2, 3, 4), (1, 2, 9, 4), (2, 2, 3)), torch.zeros(8, 5))
    # contexts: 1, 12, 123 | 1, 12, 129 | 2, 22
    assert saved.first_seen().tolist() == [True, True, True, False, False, True, True, True]
