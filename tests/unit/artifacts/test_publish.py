"""`rlhf export`: the folder is the trained model in the type asked for, or there is no folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf.artifacts.files import sha256_of, write_json
from rlhf.artifacts.fixed_text import FixedTextOutputs
from rlhf.artifacts.publish import check_range, publish
from rlhf.artifacts.reload import reload_and_compare
from rlhf.cli import main
from rlhf.config.sections import LoraSection
from rlhf.errors import ArtifactError
from rlhf.models.adapters import add_lora
from rlhf.models.loading import load_causal_lm, load_scalar_model
from tests.support.finished_runs import finish_run, here, logits, refused, train

LEVEL = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}  # of the largest output


# The model itself


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_full_run_is_converted_and_loads_in_plain_transformers(dtype, full_run, tmp_path):
    published = here(full_run, tmp_path / "out", dtype=dtype)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    trained = load_file(full_run / "model" / "model.safetensors")
    assert stored.keys() == trained.keys()
    assert all(torch.equal(stored[name], trained[name].to(getattr(torch, dtype))) for name in trained)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == getattr(torch, dtype)
    expected = logits(AutoModelForCausalLM.from_pretrained(full_run / "model"))
    difference = (logits(model) - expected).abs().max()
    assert difference <= LEVEL[dtype] * max(1, float(expected.abs().max()))
    assert published.outcome.agreement >= (1.0 if dtype == "float32" else 0.8)


@pytest.mark.full
def test_a_real_fresh_process_agrees(full_run, tmp_path, capsys):
    before = sha256_of(full_run)
    assert main(["export", "--run", str(full_run), "--out", str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"bfloat16, reloaded in a fresh process; differs .* at most \d\.\d\de-\d\d", shown)
    assert "most likely token is the same in" in shown
    assert sha256_of(full_run) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_a_fresh_process_that_fails_is_an_error_with_its_last_words(full_run, tmp_path, monkeypatch):
    interpreter = tmp_path / "interpreter"
    interpreter.write_text("#!/bin/sh\necho 'no memory is left' >&2\nexit 3\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(interpreter))
    with pytest.raises(ArtifactError, match=r"a fresh process cannot load .*exit status 3\):\nno memory is left"):
        publish(full_run, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["interpreter", "run"]


def test_the_type_of_the_run_is_kept_by_default(tiny_neox, chat_tokenizer, tmp_path):
    live = train(load_causal_lm(str(tiny_neox), dtype="bfloat16"))
    run = finish_run(tmp_path / "run", live, chat_tokenizer, tiny_neox, dtype="bfloat16")
    assert here(run, tmp_path / "out").dtype == "bfloat16"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_an_adapter_merges_into_what_it_was_unmerged(lora_run, base, tmp_path):
    published = here(lora_run, tmp_path / "out", dtype="float32")
    unmerged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), lora_run / "adapter")
    expected = logits(unmerged)
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)
    assert (logits(AutoModelForCausalLM.from_pretrained(base)) - expected).abs().max() > 0.1
    assert published.outcome.difference <= 1e-4
    assert published.note == ""


def test_an_adapter_is_merged_in_float32_and_rounded_once(base, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(base))
    add_lora(live, LoraSection(rank=2, alpha=8, targets=["dense"]))
    run = finish_run(tmp_path / "run", train(live), chat_tokenizer, base, dtype="bfloat16")
    here(run, tmp_path / "out", dtype="float32")  # the run's own model/ is bfloat16: this one is better than that
    name = "gpt_neox.layers.1.attention.dense"
    adapter = load_file(run / "adapter" / "adapter_model.safetensors")
    part = {which: adapter[f"base_model.model.{name}.lora_{which}.weight"].float() for which in "AB"}
    by_hand = load_file(base / "model.safetensors")[f"{name}.weight"] + 4.0 * part["B"] @ part["A"]  # alpha / rank
    stored = load_file(tmp_path / "out" / "model.safetensors")[f"{name}.weight"]
    torch.testing.assert_close(stored, by_hand, rtol=0, atol=1e-6)


@pytest.mark.parametrize("with_lora", [False, True])
@pytest.mark.parametrize("family", ["tiny_neox", "tiny_llama"])
def test_a_reward_model_keeps_its_zero(family, with_lora, request, chat_tokenizer, tmp_path):
    base = request.getfixturevalue(family)
    live = load_scalar_model(str(base), new_head=True)
    if with_lora:
        add_lora(live, LoraSection(rank=2, alpha=8))
    run = finish_run(tmp_path / "run", train(live), chat_tokenizer, base, stage="reward", score_offset=-3.5)
    report = {"accuracy": 0.75, "neighbours": {"accuracy": 0.625}, "shortcuts": {"verdict": "It beats them.", "n": 1}}
    write_json(run / "model" / "report_card.json", report)
    published = here(run, tmp_path / "out", dtype="float32")
    assert published.outcome.difference <= 1e-4
    assert published.outcome.agreement is None
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    shift = getattr(plain.config, "score_shift", 0.0)  # a Llama has no bias to fold it into
    assert shift == (-3.5 if family == "tiny_llama" else 0.0)
    raw = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    if with_lora:
        unshifted = PeftModel.from_pretrained(raw, run / "adapter")
    else:
        unshifted = raw
        raw.load_state_dict(live.model.state_dict())
    torch.testing.assert_close(logits(plain) + shift, logits(unshifted) - 3.5, rtol=1e-4, atol=1e-4)
    assert json.loads((tmp_path / "out" / "report_card.json").read_text())["accuracy"] == 0.75
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| accuracy | 0.75 |" in card
    assert "| neighbours: accuracy | 0.625 |" in card
    assert "| shortcuts: verdict | It beats them. |" in card
    assert not (tmp_path / "out" / "generation_config.json").exists()


def test_shards_are_as_large_as_asked(full_run, tmp_path):
    here(full_run, tmp_path / "out", max_shard_size="50KB")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()


# Refusals


def test_a_run_that_is_not_finished_is_refused(full_run, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", tmp_path / "out", "holds no finished model")
    refused(tmp_path / "empty", tmp_path / "out", "it has no state.json")
    write_json(full_run / "state.json", {"status": "failed", "stage": "sft", "step": 3, "reason": "it differs"})
    refused(full_run, tmp_path / "out", "its state is failed")


def test_an_absent_run_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no such folder"):
        here(tmp_path / "absent", tmp_path / "out")


@pytest.mark.parametrize("part", ["merged", "adapter"])
def test_an_adapter_without_an_update_is_refused(part, lora_run, tmp_path):
    file = lora_run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: t.zero_() if "lora_B" in name else t for name, t in tensors.items()}, file)
    refused(lora_run, tmp_path / "out", "0 of them a non-zero update", part=part)
    save_file({}, file)
    refused(lora_run, tmp_path / "out", "holds 0 tensors", part=part)
    file.unlink()
    refused(lora_run, tmp_path / "out", r"no adapter_model\.safetensors", part=part)


def test_an_adapter_of_another_run_is_refused(lora_run, tmp_path):
    file = lora_run / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(file).items()}, file)
    refused(lora_run, tmp_path / "out", "differ by .* on the fixed text")


def test_a_changed_base_is_refused(lora_run, base, tmp_path):
    file = base / "model.safetensors"
    tensors = load_file(file)
    tensors["gpt_neox.final_layer_norm.bias"][0] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    refused(lora_run, tmp_path / "out", "is not the base the adapter was trained on")


def test_without_its_base_the_runs_merged_model_is_used_and_said(lora_run, base, tmp_path):
    base.rename(tmp_path / "elsewhere")
    published = here(lora_run, tmp_path / "out")
    assert "absent" in published.note
    assert published.note in published.summary()
    expected = logits(AutoModelForCausalLM.from_pretrained(lora_run / "model"))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), expected)
    assert "absent" in json.loads((tmp_path / "out" / "manifest.json").read_text())["export"]["note"]
    refused(lora_run, tmp_path / "out2", "absent", part="adapter")


@pytest.mark.parametrize(("dtype", "is_refused"), [("bfloat16", True), ("float32", False)])
def test_a_merge_that_rounds_to_its_base_is_refused(dtype, is_refused, base, chat_tokenizer, tmp_path):
    with torch.no_grad():  # weights of 1.0 have steps of 2 ** -8 below in bfloat16; 1e-6 is lost, float32 keeps it
        model = AutoModelForCausalLM.from_pretrained(base)
        for parameter in model.parameters():
            parameter.copy_(parameter.sign())
        model.save_pretrained(base)
    live = load_causal_lm(str(base))
    add_lora(live, LoraSection(rank=2, alpha=8))
    with torch.no_grad():
        for name, parameter in live.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1e-6)
    run = finish_run(tmp_path / "run", live, chat_tokenizer, base)
    if is_refused:
        refused(run, tmp_path / "out", "merging changed none of 8 adapted modules", dtype=dtype)
    else:
        here(run, tmp_path / "out", dtype=dtype)


def test_a_stage_refuses_a_merge_that_is_its_base(base, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(base))
    add_lora(live, LoraSection(rank=2, alpha=8))
    with torch.no_grad():
        for name, parameter in live.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1e-30)  # a non-zero update, and no float32 weight moves by it
    with pytest.raises(ArtifactError, match="the merged model would be its base"):
        finish_run(tmp_path / "run", live, chat_tokenizer, base)
    assert not (tmp_path / "run" / "model").exists()


def test_an_out_that_holds_something_is_refused(full_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    refused(full_run, tmp_path / "out", "exists and is not empty")
    refused(full_run, tmp_path / "out" / "mine.txt", "exists and is not empty")
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"


def test_an_empty_out_is_taken(full_run, tmp_path):
    (tmp_path / "out").mkdir()
    here(full_run, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("inside", [".", "public", "../run/public", "model"])
def test_an_out_inside_the_run_is_refused(inside, full_run):
    refused(full_run, full_run / inside, "inside the run")


def test_a_weight_that_float16_cannot_hold_is_named(tiny_neox, chat_tokenizer, tmp_path):
    live = load_causal_lm(str(tiny_neox))
    with torch.no_grad():
        live.model.gpt_neox.layers[1].mlp.dense_h_to_4h.bias[3] = -70000.0
    run = finish_run(tmp_path / "run", live, chat_tokenizer, tiny_neox)
    refused(run, tmp_path / "out", r"layers\.1\.mlp\.dense_h_to_4h\.bias holds 70000", dtype="float16")
    here(run, tmp_path / "out", dtype="bfloat16")


@pytest.mark.parametrize(
    ("value", "dtype", "fits"),
    [
        (65504.0, "float16", True),
        (65505.0, "float16", False),
        (65505.0, "bfloat16", True),
        (float("inf"), "float32", False),
        (float("nan"), "float32", False),
    ],
)
def test_range_of_a_type(value, dtype, fits):
    model = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, value)
    if fits:
        check_range(model, dtype)
    else:
        with pytest.raises(ArtifactError, match="weight holds"):
            check_range(model, dtype)


def test_a_folder_that_computes_other_numbers_is_not_kept(full_run, tmp_path):
    def damaged(folder: Path, expected: FixedTextOutputs):
        file = folder / "model.safetensors"
        tensors = load_file(file)
        tensors["gpt_neox.layers.0.attention.dense.weight"][0] += 0.5
        save_file(tensors, file, metadata={"format": "pt"})
        return reload_and_compare(folder, expected)

    with pytest.raises(ArtifactError, match="differs from the live model by"):
        publish(full_run, tmp_path / "out", reload=damaged)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("options", "match"),
    [({"max_shard_size": "large"}, "size 'large'"), ({"part": "adapter", "dtype": "float16"}, "copied as it was")],
)
def test_a_request_that_means_nothing_is_refused(options, match, full_run, tmp_path):
    refused(full_run, tmp_path / "out", match, **options)


def test_a_full_run_has_no_adapter(full_run, tmp_path):
    refused(full_run, tmp_path / "out", "trained all weights and has no adapter", part="adapter")
