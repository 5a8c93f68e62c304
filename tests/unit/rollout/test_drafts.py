"""Answers from drafts: their distribution against exact probabilities of every answer, and their log-probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

from rlhf.config.sections import SamplingSection
from rlhf.models.loading import load_causal_lm
from rlhf.ops import speculative
from rlhf.rollout import verification
from rlhf.rollout.drafts import AnswerDraft
from rlhf.rollout.transformers import Redrawn, TransformersRollout

VOCABULARY, EOS, LIMIT, COUNT, WAY = 4, 0, 3, 4_000, 0.35
PROMPT = np.array([1, 2, 1], np.int32)
# In 2,000 simulated draws of 4,000 answers from the right distribution, over 40 answers, the total variation distance
# was never above 0.053. Every wrong rule below is above 0.11.
CLOSE, FAR = 0.055, 0.11


def tiny_policy(folder: Path, seed: int) -> Path:
    """A GPT-NeoX of 5 tokens: the weights of seed 0, on their way to those of another seed."""
    models = []
    for each in (0, seed):
        torch.manual_seed(each)
        config = GPTNeoXConfig(
            vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=32, rotary_pct=0.5, eos_token_id=EOS, initializer_range=0.7,
        )  # fmt: skip
        models.append(GPTNeoXForCausalLM(config))
    with torch.no_grad():
        for weight, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            weight.lerp_(other, WAY)
        models[0].get_output_embeddings().weight.mul_(0.5)
    models[0].save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Three policies: (the model under our attention, exact probabilities of every answer at a temperature)."""
    made = []
    for seed in (7, 8, 9):
        folder = tiny_policy(tmp_path_factory.mktemp(f"policy-{seed}"), seed)
        plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
        made.append((load_causal_lm(str(folder)).model.eval(), plain))
    return made


@torch.no_grad()
def exact(plain, temperature: float, limit: int = LIMIT, stop: tuple[int, ...] = ()) -> dict[tuple[int, ...], float]:
    """The probability of each answer, by full forwards of transformers' eager attention over every prefix."""
    found, open_answers = {}, {(): 1.0}
    for length in range(limit):
        prefixes = list(open_answers)
        ids = torch.tensor([[*PROMPT.tolist(), *prefix] for prefix in prefixes])
        rows = (plain(ids).logits[:, -1].double() / temperature).softmax(-1).tolist()
        following = {}
        for prefix, row in zip(prefixes, rows, strict=True):
            for token in range(VOCABULARY):
                answer = (*prefix, token)
                ended = token == EOS or length + 1 == limit or (stop and answer[-len(stop) :] == stop)
                (found if ended else following)[answer] = open_answers[prefix] * row[token]
        open_answers = following
    assert sum(found.values()) == pytest.approx(1, abs=1e-6)
    return found


def distance(answers: list[np.ndarray], expected: dict[tuple[int, ...], float]) -> float:
    """Total variation distance between the answers' frequencies and their probabilities."""
    counts = dict.fromkeys(expected, 0)
    for answer in answers:
        counts[tuple(answer.tolist())] += 1
    return sum(abs(counts[each] / len(answers) - expected[each]) for each in expected) / 2


def settings(**changes) -> SamplingSection:
    return SamplingSection(**{"max_new_tokens": LIMIT, "batch_size": 4096} | changes)


def redraw(model, step: int, drafts, *, top=None, decode=None, **changes) -> Redrawn:
    streams = [(17, step, 0, place) for place in range(len(drafts))]
    rollout = TransformersRollout(model, EOS, decode)
    return rollout.redraw([PROMPT] * len(drafts), streams, settings(**changes), drafts, top=top)


def chain(policies, **changes) -> list[Redrawn]:
    """Answers of the first policy, then those of the others, each from the answers before."""
    drawn, drafts = [], [None] * COUNT
    for step, (model, _) in enumerate(policies):
        drawn.append(redraw(model, step, drafts, **changes))
        drafts = drawn[-1].drafts
    return drawn


@pytest.mark.parametrize(
    ("top", "temperature"), [(None, 1.0), (2, 1.0), (None, 0.7)], ids=["all kept", "two kept", "temperature 0.7"]
)
def test_answers_from_drafts_have_the_distribution_of_the_new_policy(policies, top, temperature) -> None:
    drawn = chain(policies, top=top, temperature=temperature)
    for redrawn, (_, plain) in zip(drawn, policies, strict=True):
        assert distance(redrawn.rollouts.tokens, exact(plain, temperature)) < CLOSE
    first = exact(policies[0][1], temperature)
    assert distance(drawn[1].rollouts.tokens, first) > FAR  # the policies differ: not moving at all would show
    assert 0.1 < drawn[1].num_accepted / drawn[1].num_proposed < 0.9


@pytest.mark.parametrize("wrong", ["keep all", "ratio upside down", "no residual", "residual of the old"])
def test_a_wrong_rule_is_found(policies, wrong, monkeypatch) -> None:
    rules = {
        "keep all": ("accepted", lambda kept, new, uniform: uniform < 2),
        "ratio upside down": ("accepted", lambda kept, new, uniform: uniform * new < kept),
        "no residual": ("residual_logits", lambda probabilities, kept: probabilities.log()),
        "residual of the old": (
            "residual_logits",
            lambda probabilities, kept: speculative.residual_logits(kept, probabilities),
        ),
    }
    monkeypatch.setattr(verification, *rules[wrong])
    drawn = chain(policies[:2])
    assert distance(drawn[1].rollouts.tokens, exact(policies[1][1], 1.0)) > FAR


def test_as_many_first_tokens_are_kept_as_any_rule_can_keep(policies) -> None:
    """sum_v min(p(v), q(v)) for the first token: its standard error over 4,000 answers is below 0.008."""
    drawn = chain(policies[:2], max_new_tokens=1)
    old, new = (exact(plain, 1.0, limit=1) for _, plain in policies[:2])
    overlap = sum(min(old[token], new[token]) for token in old)
    assert drawn[1].num_proposed == COUNT
    assert drawn[1].num_accepted / COUNT == pytest.approx(overlap, abs=0.03)


def test_the_same_policy_keeps_every_draft(policies) -> None:
    model = policies[0][0]
    first = redraw(model, 0, [None] * 64)
    again = redraw(model, 1, first.drafts)
    assert [each.tolist() for each in again.rollouts.tokens] == [each.tolist() for each in first.rollouts.tokens]
    assert again.rollouts.finished == first.rollouts.finished
    assert again.num_accepted == again.num_proposed == sum(map(len, first.rollouts.tokens))


def test_without_drafts_the_answers_are_those_of_generate(policies) -> None:
    model = policies[0][0]
    streams = [(17, 0, 0, place) for place in range(64)]
    plain = TransformersRollout(model, EOS).generate([PROMPT] * 64, streams, settings())
    found = redraw(model, 0, [None] * 64).rollouts
    assert [each.tolist() for each in found.tokens] == [each.tolist() for each in plain.tokens]
    assert [each.tolist() for each in found.logprobs] == [each.tolist() for each in plain.logprobs]


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [3, 64])
def test_logprobs_and_kept_probabilities_are_those_of_a_full_forward(tiny_llama, batch_size) -> None:
    """An earlier policy's answers to prompts of other lengths, some of them verified while others are decoded."""
    rng = np.random.default_rng(5)
    prompts = [rng.integers(2, 400, length).astype(np.int32) for length in (7, 1, 12, 4, 9, 2)]
    streams = [[(17, step, row, 0) for row in range(len(prompts))] for step in (0, 1)]
    chosen = settings(max_new_tokens=12, temperature=1.3, batch_size=batch_size)
    old, model = (load_causal_lm(str(tiny_llama)).model.eval() for _ in range(2))
    for weight in old.parameters():
        weight.mul_(1.02)
    drafts = [*TransformersRollout(old, -1).redraw(prompts, streams[0], chosen, [None] * 6, top=9).drafts[:5], None]
    found = TransformersRollout(model, -1).redraw(prompts, streams[1], chosen, drafts, top=9)
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation="eager", dtype=torch.float32).eval()
    assert 0 < found.num_accepted < found.num_proposed == 60
    for prompt, tokens, logprobs, draft in zip(
        prompts, found.rollouts.tokens, found.rollouts.logprobs, found.drafts, strict=True
    ):
        ids = torch.from_numpy(np.concatenate([prompt, tokens]).astype(np.int64))
        rows = (plain(ids[None]).logits[0, len(prompt) - 1 : -1] / 1.3).log_softmax(-1)
        expected = rows.gather(1, torch.from_numpy(tokens.astype(np.int64))[:, None])[:, 0]
        torch.testing.assert_close(torch.from_numpy(logprobs), expected, rtol=0, atol=1e-5)
        likeliest = rows.exp().topk(9).values
        np.testing.assert_allclose(np.sort(draft.values)[:, ::-1], likeliest.numpy(), rtol=0, atol=1e-5)
        for position in range(len(tokens)):
            whole = draft.row(position, rows.shape[1])
            kept = whole > 0
            assert kept.sum() == 9
            np.testing.assert_allclose(whole[kept], rows[position].exp().numpy()[kept], rtol=0, atol=1e-5)


def test_a_whole_draft_waits_for_the_only_slot(policies) -> None:
    """The answer before it has filled every column when it ends."""
    rollout, prompts = TransformersRollout(policies[0][0], -1), [PROMPT[:1], PROMPT]
    streams = [[(17, step, row, 0) for row in range(2)] for step in (0, 1)]
    one_slot = settings(batch_size=1)
    first = rollout.redraw(prompts, streams[0], one_slot, [None, None], top=None)
    second = rollout.redraw(prompts, streams[1], one_slot, [None, first.drafts[1]], top=None)
    assert second.num_accepted == second.num_proposed == LIMIT
    assert second.rollouts.tokens[1].tolist() == first.rollouts.tokens[1].tolist()


def letters(tokens) -> str:
    return "".join("_abc"[token] for token in tokens)


def test_stop_texts_end_answers_from_drafts_as_they_end_others(policies) -> None:
    drawn = chain(policies[:2], decode=letters, stop=["cb"])
    expected = exact(policies[1][1], 1.0, stop=(3, 2))
    assert distance(drawn[1].rollouts.tokens, expected) < CLOSE
    for tokens, finished in zip(drawn[1].rollouts.tokens, drawn[1].rollouts.finished, strict=True):
        assert finished == (tokens[-1] == EOS or letters(tokens).endswith("cb"))


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)], ids=["longer", "shorter"])
def test_a_draft_of_another_length_limit_goes_on_or_is_cut(policies, before, after) -> None:
    first = redraw(policies[0][0], 0, [None] * COUNT, max_new_tokens=before)
    second = redraw(policies[1][0], 1, first.drafts, max_new_tokens=after)
    assert distance(second.rollouts.tokens, exact(policies[1][1], 1.0, limit=after)) < CLOSE * (
        2 if after > LIMIT else 1
    )


def test_a_draft_by_hand() -> None:
    """Probabilities 0.6 of token 4 and 0.3 of token 1 are kept at the first position, 0.5 of 2 and 0.4 of 0 next."""
    values, ids = np.array([[0.6, 0.3], [0.5, 0.4]], np.float32), np.array([[4, 1], [2, 0]], np.uint16)
    draft = AnswerDraft(np.array([1, 3], np.int32), values, ids)
    assert draft.own(2).tolist() == pytest.approx([0.3, 0.0])
    assert draft.row(1, 5).tolist() == pytest.approx([0.4, 0, 0.5, 0, 0])
    whole = AnswerDraft(np.array([1, 3], np.int32), np.eye(5, dtype=np.float32)[[1, 2]], None)
    assert whole.own(2).tolist() == [1.0, 0.0]
    assert whole.own(1).tolist() == [1.0]
