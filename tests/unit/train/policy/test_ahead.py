"""Answers drawn while the trainer learns, by the toy engine's process; and their form in a checkpoint."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from rlhf.config.ppo import PpoConfig
from rlhf.data.encode import EncodedPrompt
from rlhf.data.records import Message
from rlhf.errors import CheckpointError, EngineError
from rlhf.rollout.vllm.client import VllmRollout
from rlhf.rollout.vllm.process import EngineProcess
from rlhf.rollout.vllm.transport import SharedMemory
from rlhf.train.policy.ahead import Ahead, as_json, from_json
from rlhf.train.policy.experience import begin_answers, draw_answers
from tests.support.launcher import REPOSITORY
from tests.support.tables import ONE_RANK

TOY = [sys.executable, str(REPOSITORY / "tests" / "support" / "toy_engine.py")]
VOCABULARY, END = 11, 3
CONFIG = PpoConfig.model_validate({"sampling": {"max_new_tokens": 8, "temperature": 1.0}})
TOKENIZER: Any = None
PROMPTS = [EncodedPrompt(np.asarray([2, row], np.int32), row, (Message("user", "질문"),)) for row in (4, 4, 7)]


class Policy(nn.Module):
    ranks = ONE_RANK

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(4)))

    def held_weights(self) -> Any:
        return nullcontext(self)


@pytest.fixture
def engine(tmp_path):
    made = []
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": VOCABULARY}))

    def make(fault: str = "") -> VllmRollout:
        log, variables = tmp_path / "engine.log", {"TOY_ENGINE": fault}
        process = EngineProcess(TOY, log, variables=variables, timeout_s=60, start_timeout_s=60)
        made.append(process)
        process.greet(lambda versions: None, {"model": str(tmp_path)})
        return VllmRollout(
            process, (END,), lambda stops: None, SharedMemory, torch.float32, 2**20, VOCABULARY, checked=True
        )

    yield make
    for process in made:
        process.close()


def test_answers_begun_are_those_of_the_weights_at_the_beginning(engine) -> None:
    policy, drawing, ahead = Policy(), engine(), Ahead()
    plain: Any = policy
    expected = as_json(draw_answers(plain, TOKENIZER, PROMPTS, CONFIG, 5, drawing))
    ahead.begin(begin_answers(plain, PROMPTS, CONFIG, 5, drawing))
    with torch.no_grad():
        policy.table.neg_()
    assert ahead.take() == expected
    assert ahead.take() == []
    assert as_json(draw_answers(plain, TOKENIZER, PROMPTS, CONFIG, 5, drawing)) != expected


def test_answers_come_back_from_a_checkpoint_bit_for_bit(engine) -> None:
    policy: Any = Policy()
    samples = draw_answers(policy, TOKENIZER, PROMPTS, CONFIG, 5, engine())
    again = from_json(json.loads(json.dumps(as_json(samples))), PROMPTS)
    for found, drawn in zip(again, samples, strict=True):
        assert found.old_logprobs.tobytes() == drawn.old_logprobs.tobytes()
        assert found.response.tobytes() == drawn.response.tobytes()
        assert (found.finished, found.prompt) == (drawn.finished, drawn.prompt)


def test_answers_to_other_prompts_are_refused() -> None:
    answers = [{"row": row, "tokens": [1], "logprobs": [0.0], "finished": False} for row in (4, 7, 4)]
    with pytest.raises(CheckpointError, match="other prompts"):
        from_json(answers, PROMPTS)


def test_an_engine_that_dies_in_the_background_is_an_error_where_answers_are_taken(engine) -> None:
    policy: Any = Policy()
    ahead = Ahead()
    ahead.begin(begin_answers(policy, PROMPTS, CONFIG, 5, engine("dies")))
    with pytest.raises(EngineError, match="exit status 9"):
        ahead.take()


def test_overlap_needs_an_engine() -> None:
    with pytest.raises(ValidationError, match=r"rollout\.overlap = 1 needs an engine"):
        PpoConfig.model_validate({"rollout": {"overlap": 1}})
    assert PpoConfig.model_validate({"rollout": {"overlap": 1, "backend": "vllm"}}).rollout.overlap == 1
