"""What rollout.reuse refuses, what its drafts may take, and the answers and shares of the ranks together."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rlhf.config.ppo import PpoConfig
from rlhf.data.encode import EncodedPrompt
from rlhf.data.records import Message
from rlhf.errors import ConfigError
from rlhf.models.loading import load_causal_lm
from rlhf.train.policy import reuse
from rlhf.train.policy.drafts import Drafts
from rlhf.train.policy.experience import draw_answers
from rlhf.train.policy.reuse import Reuse, required_memory
from tests.support.tables import ONE_RANK

GIB = 2**30
ANSWERS = 1000 + 128 + 256  # of all prompts, of an iteration, of a file of the checkpoint


def config(**rollout: Any) -> PpoConfig:
    sizes = {"ppo": {"rollout_size": 128}, "sampling": {"max_new_tokens": 64}}
    return PpoConfig.model_validate({"rollout": {"reuse": True, **rollout}, **sizes})


@pytest.mark.parametrize(
    ("rollout", "words"),
    [
        ({"reuse": True, "backend": "vllm"}, "set rollout.backend=transformers, or rollout.reuse=false"),
        ({"reuse": False, "reuse_top": 8}, "set rollout.reuse=true, or rollout.reuse_top=null"),
    ],
)
def test_settings_that_cannot_be_are_refused(rollout: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PpoConfig.model_validate({"rollout": rollout})


@pytest.mark.parametrize(
    ("top", "needed"),
    [
        (None, ANSWERS * 64 * 30_000 * 4),  # the whole vocabulary
        (100, ANSWERS * 64 * 100 * (4 + 2)),  # with ids of two bytes
    ],
)
def test_the_memory_of_drafts_by_hand(monkeypatch: pytest.MonkeyPatch, top: int | None, needed: int) -> None:
    monkeypatch.setattr(reuse, "free_memory", lambda device: 2 * needed)
    assert required_memory(config(reuse_top=top), ONE_RANK, num_answers=1000, vocabulary=30_000) == needed
    monkeypatch.setattr(reuse, "free_memory", lambda device: 2 * needed - 2)
    with pytest.raises(ConfigError, match="half of the free CPU memory"):
        required_memory(config(reuse_top=top), ONE_RANK, num_answers=1000, vocabulary=30_000)


def test_answers_of_replaced_groups_are_drafts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three more rounds of 128 answers may be drawn in an iteration."""
    monkeypatch.setattr(reuse, "free_memory", lambda device: 1000 * GIB)
    groups = {"estimator": "grpo", "samples_per_prompt": 4, "drop_equal_groups": True, "refill_rounds": 3}
    settings = config(reuse_top=100).model_dump()
    settings["ppo"] |= {**groups, "whiten_advantages": None}
    found = required_memory(PpoConfig.model_validate(settings), ONE_RANK, num_answers=1000, vocabulary=30_000)
    assert found == (ANSWERS + 3 * 128) * 64 * 100 * (4 + 2)


def test_the_number_that_the_error_names_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of 2 GiB for 88,576 tokens: 12,122 bytes each, of 8 bytes a probability with ids above 65,536."""
    monkeypatch.setattr(reuse, "free_memory", lambda device: 2 * GIB)
    with pytest.raises(ConfigError, match="set it to 1515 or less"):
        required_memory(config(), ONE_RANK, num_answers=1000, vocabulary=70_000)
    required_memory(config(reuse_top=1515), ONE_RANK, num_answers=1000, vocabulary=70_000)
    with pytest.raises(ConfigError, match="set it to 1515 or less"):
        required_memory(config(reuse_top=1516), ONE_RANK, num_answers=1000, vocabulary=70_000)


class Policy:
    """A model that is drawn from as it is."""

    ranks = ONE_RANK

    def __init__(self, model: Any) -> None:
        self.model = model

    def full_weights(self) -> Any:
        return nullcontext(self.model)


def test_shares_of_tokens_and_fresh_answers(tiny_neox, chat_tokenizer) -> None:
    model = load_causal_lm(str(tiny_neox)).model.eval()
    prompts = [EncodedPrompt(np.array([5, 9, row], np.int32), row, (Message("user", "질문"),)) for row in (1, 1, 2)]
    policy: Any = Policy(model)
    settings, reusing = config(), Reuse(Drafts(ONE_RANK), None)
    first = reusing.draw(policy, chat_tokenizer, prompts, settings, 1)
    plain = draw_answers(policy, chat_tokenizer, prompts, settings, 1)
    assert [sample.response.tolist() for sample in first] == [sample.response.tolist() for sample in plain]
    assert reusing.completed() == {"rollout/reused_share": 0.0}
    # the same prompts in another order, and one more: the same policy keeps all, and knows the two answers apart
    more = [prompts[2], *prompts[:2], prompts[2]]
    second = reusing.draw(policy, chat_tokenizer, more, settings, 2)
    for ours, earlier in zip(second, [first[2], *first[:2]], strict=False):
        assert ours.response.tolist() == earlier.response.tolist()
        np.testing.assert_allclose(ours.old_logprobs, earlier.old_logprobs, rtol=0, atol=1e-5)
    kept, total = sum(len(sample.response) for sample in first), sum(len(sample.response) for sample in second)
    assert reusing.completed() == {"rollout/reused_share": kept / total, "rollout/accepted_share": 1.0}
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.01)
    reusing.draw(policy, chat_tokenizer, prompts, settings, 3)
    assert 0 < reusing.completed()["rollout/accepted_share"] < 1
