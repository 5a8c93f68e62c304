"""Packed and tree-shaped rows give what transformers gives for each sequence by itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn.attention import varlen
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from rlhf.errors import ModelError
from rlhf.models.attention import PACKED_SDPA, PACKED_VARLEN, no_mask, packed_sdpa, packed_varlen, varlen_plan
from rlhf.models.loading import (
    PackedCausalLM,
    PackedScalarModel,
    checkpoint_activations,
    load_causal_lm,
    load_scalar_model,
)
from rlhf.ops.segments import Segment, Segments
from tests.support.varlen_kernel import varlen_by_definition

FAMILIES = ("tiny_neox", "tiny_llama")
VOCABULARY = 400


def random_ids(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, VOCABULARY, (length,), generator=generator) for length in lengths]


def packed_row(sequences: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, Segments]:
    """ids [1, T], positions from 0 in each sequence, and a segment for each."""
    bounds = [0]
    for sequence in sequences:
        bounds.append(bounds[-1] + len(sequence))
    spans = tuple(Segment(a, b) for a, b in pairwise(bounds))
    places = torch.cat([torch.arange(len(sequence)) for sequence in sequences])
    return torch.cat(sequences)[None], places[None], Segments(spans)


def tree_row(
    trees: list[tuple[torch.Tensor, list[torch.Tensor]]],
) -> tuple[torch.Tensor, torch.Tensor, Segments, list[torch.Tensor]]:
    """Trees one after another; also where in the row each answer's tokens are."""
    ids, places, spans, where, at = [], [], [], [], 0
    for prompt, answers in trees:
        first, last = at, at + len(prompt)
        ids.append(prompt)
        places.append(torch.arange(len(prompt)))
        spans.append(Segment(first, last))
        at = last
        for answer in answers:
            ids.append(answer)
            places.append(torch.arange(len(prompt), len(prompt) + len(answer)))
            spans.append(Segment(at, at + len(answer), first, last))
            where.append(torch.arange(at, at + len(answer)))
            at += len(answer)
    return torch.cat(ids)[None], torch.cat(places)[None], Segments(tuple(spans)), where


def everywhere(ids: torch.Tensor) -> torch.Tensor:
    return torch.arange(ids.shape[1])


def cotangents(count: int, seed: int = 3) -> torch.Tensor:
    """[count, V]: a random direction in which to differentiate each position's logits."""
    return torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(seed)) / count


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same_gradients(got: torch.nn.Module, wanted: torch.nn.Module) -> None:
    got_all, wanted_all = gradients(got), gradients(wanted)
    assert got_all.keys() == wanted_all.keys()
    for name, gradient in wanted_all.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(got_all[name], gradient, rtol=1e-5, atol=1e-5 * scale, msg=name)


def own_model(folder) -> PackedCausalLM:
    return load_causal_lm(str(folder)).train()


def reference_model(folder):
    """transformers' plain eager attention, one unpadded sequence at a time."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_separate_in_logits_and_gradients(family, checkpointing, request):
    folder = request.getfixturevalue(family)
    sequences = random_ids(7, 1, 12, 5)
    model, reference = own_model(folder), reference_model(folder)
    if checkpointing:
        checkpoint_activations(model.model)
    ids, places, segments = packed_row(sequences)
    direction = cotangents(ids.shape[1])

    packed = model(ids, places, segments, everywhere(ids))
    separate = torch.cat([reference(sequence[None]).logits[0] for sequence in sequences])
    torch.testing.assert_close(packed, separate, rtol=1e-5, atol=1e-5)

    (packed * direction).sum().backward()
    (separate * direction).sum().backward()
    assert_same_gradients(model.model, reference)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("num_answers", [2, 4, 9])
@pytest.mark.parametrize("family", FAMILIES)
def test_trees_equal_separate_sequences(family, num_answers, checkpointing, request):
    folder = request.getfixturevalue(family)
    prompt, *answers = random_ids(6, *(1 + n % 4 for n in range(num_answers)), seed=num_answers)
    second, *others = random_ids(3, 4, 2, seed=77)
    trees = [(prompt, answers), (second, others)]
    model, reference = own_model(folder), reference_model(folder)
    if checkpointing:
        checkpoint_activations(model.model)
    ids, places, segments, where = tree_row(trees)

    shared = model(ids, places, segments, torch.cat(where))
    separate = torch.cat(
        [
            reference(torch.cat([start, answer])[None]).logits[0, len(start) :]
            for start, group in trees
            for answer in group
        ]
    )
    torch.testing.assert_close(shared, separate, rtol=1e-5, atol=1e-5)

    direction = cotangents(len(separate))
    (shared * direction).sum().backward()
    (separate * direction).sum().backward()
    assert_same_gradients(model.model, reference)


def test_absolute_positions_restart_and_continue():
    """Rotary positions are relative and hide an offset: GPT-2 learns a vector for each place."""
    torch.manual_seed(4)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=32,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    plain = GPT2LMHeadModel(config).eval()
    prompt, left, right, alone = random_ids(6, 3, 5, 8)
    with torch.no_grad():
        separate = [plain(torch.cat([prompt, answer])[None]).logits[0, 6:] for answer in (left, right)]
        separate.append(plain(alone[None]).logits[0])
        plain.set_attn_implementation(PACKED_SDPA)
        ids, places, segments, where = tree_row([(prompt, [left, right]), (alone, [])])
        model = PackedCausalLM(plain)
        together = model(ids, places, segments, torch.cat([*where, torch.arange(14, 22)]))
    torch.testing.assert_close(together, torch.cat(separate), rtol=1e-5, atol=1e-5)


def test_scalar_model_reads_trees_and_sequences_alike(tiny_reward):
    model = load_scalar_model(str(tiny_reward)).eval()
    prompt, left, right = random_ids(5, 3, 4)
    ids, places, segments, where = tree_row([(prompt, [left, right])])
    tree = model(ids, places, segments, torch.stack([tokens[-1] for tokens in where]))
    for answer, score in zip((left, right), tree, strict=True):
        whole = torch.cat([prompt, answer])
        ids, places, segments = packed_row([whole])
        alone = model(ids, places, segments, torch.tensor([len(whole) - 1]))
        torch.testing.assert_close(score[None], alone, rtol=1e-5, atol=1e-5)


def test_scalar_model_equals_plain_transformers(tiny_reward):
    # transformers reads the score at the last token that is not PAD: each sequence by itself has none
    from transformers import AutoModelForSequenceClassification

    model: PackedScalarModel = load_scalar_model(str(tiny_reward)).eval()
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_reward, attn_implementation="eager").eval()
    sequences = random_ids(4, 9, 2)
    ids, places, segments = packed_row(sequences)
    scores = model(ids, places, segments, torch.tensor([3, 12, 14]))  # last tokens: 4 - 1, 4 + 9 - 1, 15 - 1
    expected = torch.cat([plain(sequence[None]).logits[0] for sequence in sequences])
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_leak_across_a_boundary(family, request):
    model = load_causal_lm(str(request.getfixturevalue(family))).eval()
    first, middle, last = random_ids(5, 6, 4)
    other = random_ids(6, seed=9)[0]
    ids, places, segments = packed_row([first, middle, last])
    changed, _, _ = packed_row([first, other, last])
    with torch.no_grad():
        before = model(ids, places, segments, everywhere(ids))
        after = model(changed, places, segments, everywhere(ids))
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[11:], after[11:])
    assert not torch.equal(before[5:11], after[5:11])


@pytest.mark.parametrize("family", FAMILIES)
def test_no_leak_between_answers_of_one_prompt(family, request):
    model = load_causal_lm(str(request.getfixturevalue(family))).eval()
    prompt, first, second, third, other = random_ids(4, 3, 3, 3, 3)
    ids, places, segments, _ = tree_row([(prompt, [first, second, third])])
    changed, *_ = tree_row([(prompt, [first, other, third])])
    with torch.no_grad():
        before = model(ids, places, segments, everywhere(ids))
        after = model(changed, places, segments, everywhere(ids))
    assert torch.equal(before[:7], after[:7])
    assert torch.equal(before[10:], after[10:])
    assert not torch.equal(before[7:10], after[7:10])


def test_the_head_runs_at_the_asked_positions_only(tiny_neox):
    model = load_causal_lm(str(tiny_neox)).eval()
    ids, places, segments = packed_row(random_ids(6, 5))
    with torch.no_grad():
        everything = model(ids, places, segments, everywhere(ids))
        some = model(ids, places, segments, torch.tensor([9, 0, 4]))
    assert some.shape == (3, VOCABULARY)
    torch.testing.assert_close(some, everything[[9, 0, 4]], rtol=1e-6, atol=1e-6)


def mistral(window: int) -> PackedCausalLM:
    torch.manual_seed(5)
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
        attn_implementation=PACKED_SDPA,
    )
    return PackedCausalLM(MistralForCausalLM(config).eval())


def test_sequence_within_the_sliding_window_is_exact():
    model = mistral(window=8)
    sequences = random_ids(8, 5)
    ids, places, segments = packed_row(sequences)
    with torch.no_grad():
        packed = model(ids, places, segments, everywhere(ids))
        model.model.set_attn_implementation("eager")
        separate = torch.cat([model.model(sequence[None]).logits[0] for sequence in sequences])
    torch.testing.assert_close(packed, separate, rtol=1e-5, atol=1e-5)


def test_sequence_longer_than_the_sliding_window_is_refused():
    ids, places, segments = packed_row(random_ids(4, 9))
    with pytest.raises(ModelError, match="9 tokens is longer than the model's sliding window of 8") as caught:
        mistral(window=8)(ids, places, segments, everywhere(ids))
    assert "data.max_length to 8" in caught.value.fix


def test_tree_counts_its_prompt_towards_the_sliding_window():
    prompt, short, long = random_ids(5, 3, 4)
    model = mistral(window=8)
    ids, places, segments, _ = tree_row([(prompt, [short, short])])  # 5 + 3 = 8: just fits
    model(ids, places, segments, everywhere(ids))
    ids, places, segments, _ = tree_row([(prompt, [short, long])])  # 5 + 4 = 9
    with pytest.raises(ModelError, match="9 tokens"):
        model(ids, places, segments, everywhere(ids))


def test_soft_capped_scores_are_refused():
    tensor = torch.zeros(1, 4, 9, 8)
    with pytest.raises(ModelError, match="caps its attention scores"):  # Gemma 2 passes softcap=50.0
        packed_sdpa(torch.nn.Module(), tensor, tensor, tensor, None, segments=BY_HAND, softcap=50.0)


def test_no_mask_is_empty_and_four_dimensional():
    assert no_mask("cpu").shape == (1, 1, 0, 0)


# a plain sequence of 3, then a prompt of 2 with answers of 1 and 3
BY_HAND = Segments((Segment(0, 3), Segment(3, 5), Segment(5, 6, 3, 5), Segment(6, 9, 3, 5)))


def test_varlen_plan_by_hand():
    plan = varlen_plan(BY_HAND, torch.device("cpu"))
    assert plan.query_bounds.tolist() == [0, 3, 5, 6, 9]
    assert plan.key_bounds.tolist() == [0, 3, 5, 8, 13]  # keys: 3, 2, 2 + 1, 2 + 3
    assert plan.key_index.tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 3, 4, 6, 7, 8]
    assert (plan.longest_query, plan.longest_key) == (3, 5)
    assert (plan.query_bounds.dtype, plan.key_bounds.dtype) == (torch.int32, torch.int32)


def test_varlen_plan_of_plain_sequences():
    plan = varlen_plan(Segments((Segment(0, 2), Segment(2, 6))), torch.device("cpu"))
    assert plan.query_bounds.tolist() == plan.key_bounds.tolist() == [0, 2, 6]
    assert plan.key_index is None  # keys lie in place
    assert (plan.longest_query, plan.longest_key) == (4, 4)


@pytest.mark.parametrize("segments", [BY_HAND, Segments((Segment(0, 4), Segment(4, 9)))])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_varlen_path_equals_sdpa_path(segments, key_heads, monkeypatch):
    monkeypatch.setattr(varlen, "varlen_attn", varlen_by_definition)
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(1, 4, 9, 8, generator=generator)
    key, value = (torch.randn(1, key_heads, 9, 8, generator=generator) for _ in range(2))
    module = torch.nn.Module()
    expected, _ = packed_sdpa(module, query, key, value, None, segments=segments, scaling=0.4)
    got, _ = packed_varlen(module, query, key, value, None, segments=segments, scaling=0.4)
    assert got.shape == (1, 9, 4, 8)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_varlen_refuses_dropout():
    tensor = torch.zeros(1, 4, 9, 8)
    with pytest.raises(ModelError, match="dropout"):
        packed_varlen(torch.nn.Module(), tensor, tensor, tensor, None, segments=BY_HAND, dropout=0.1)


def test_a_kernel_without_grouped_heads_gets_repeated_ones(monkeypatch):
    def of_torch_2_11(q, k, v, cu_q, cu_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)):
        return varlen_by_definition(q, k, v, cu_q, cu_k, max_q, max_k, scale=scale, window_size=window_size)

    generator = torch.Generator().manual_seed(2)
    query = torch.randn(1, 4, 9, 8, generator=generator)
    key, value = (torch.randn(1, 2, 9, 8, generator=generator) for _ in range(2))
    module = torch.nn.Module()
    expected, _ = packed_sdpa(module, query, key, value, None, segments=BY_HAND, scaling=0.4)
    monkeypatch.setattr(varlen, "varlen_attn", of_torch_2_11)
    got, _ = packed_varlen(module, query, key, value, None, segments=BY_HAND, scaling=0.4)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_all_layers_and_recomputations_read_one_plan(tiny_llama, checkpointing, monkeypatch):
    """Of one transfer: every bound is a view of one memory."""
    read = []

    def kernel(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):
        read.append((cu_q, cu_k))
        return varlen_by_definition(
            q, k, v, cu_q, cu_k, max_q, max_k, scale=scale, window_size=window_size, enable_gqa=enable_gqa
        )

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    model = own_model(tiny_llama)
    model.model.set_attn_implementation(PACKED_VARLEN)
    if checkpointing:
        checkpoint_activations(model.model)
    ids, places, segments, where = tree_row([(random_ids(6)[0], random_ids(3, 2, seed=1))])
    model(ids, places, segments, torch.cat(where)).sum().backward()
    layers = model.model.config.num_hidden_layers
    assert len(read) == (2 * layers if checkpointing else layers)
    assert len({id(tensor) for pair in read for tensor in pair}) == 2
    assert len({tensor.untyped_storage().data_ptr() for pair in read for tensor in pair}) == 1


def test_a_plan_is_no_part_of_the_value_of_segments():
    first, second = Segments.of_lengths([2, 3]), Segments.of_lengths([2, 3])
    varlen_plan(first, torch.device("cpu"))
    assert (first, hash(first), repr(first)) == (second, hash(second), repr(second))
    assert second.plans == {}
