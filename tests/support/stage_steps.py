"""Every step of the stages on tiny models, on a device of choice, as (name, action) in the order of a run.

An action returns numbers that two devices must agree on, or nothing where they may differ (sampled answers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.config.ppo import PpoConfig
from rlhf.config.schema import DpoConfig, RewardConfig, SftConfig
from rlhf.config.sections import DeepSpeedSection, SamplingSection
from rlhf.data.encode import EncodedMarked, EncodedPrompt, EncodedRanking, EncodedSequence, Encoder
from rlhf.data.records import Message, Prompt
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.deepspeed import InferenceModel, TrainedModel
from rlhf.engine.ranks import Ranks
from rlhf.evaluate.answers.policy import answer_logprobs, answer_prompts
from rlhf.models.head import install_head
from rlhf.models.loading import PackedCausalLM, PackedScalarModel, load_causal_lm, load_scalar_model
from rlhf.models.scoring import answer_scores, tree_scores
from rlhf.train.policy.experience import draw_answers, gather_experience, with_training_logprobs
from rlhf.train.policy.reward_sources import RewardSources
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.update import update
from rlhf.train.preference.data import answers_of_others
from rlhf.train.preference.evaluation import evaluate_preferences
from rlhf.train.preference.rows import ReferencedRow
from rlhf.train.preference.step import preference_step
from rlhf.train.reward import held_out_accuracy, reward_step
from rlhf.train.schedules import Schedule
from rlhf.train.sft import evaluate_sft, sample_answers, sft_step

# Adam's epsilon below is of the gradients' size, so that rounding does not decide the direction of an update.
SCHEDULE = Schedule(total=5, warmup=1, kind="linear", floor=0.1)
TEXTS = ("안녕하세요?", "점심에 뭘 먹으면 좋을까요?", "날씨가 참 좋네요", "제주도 여행", "속상해요", "비가 온대요")
Step = tuple[str, Callable[[], list[float] | None]]


@dataclass
class Steps:
    """The steps on the models of `folder` (neox, llama, reward), in one dtype and with one attention kernel."""

    folder: Path
    ranks: Ranks
    dtype: str
    attention: str

    @cached_property
    def tokenizer(self) -> ChatTokenizer:
        return load_tokenizer(str(self.folder / "neox"), "kullm")

    def language(self, name: str = "neox") -> PackedCausalLM:
        path, device = str(self.folder / name), self.ranks.device
        wrapped = load_causal_lm(path, dtype=self.dtype, attention=self.attention, device=device)  # type: ignore[arg-type]
        install_head(wrapped.model, "chunked")
        return wrapped

    def scalar(self) -> PackedScalarModel:
        path, device = str(self.folder / "reward"), self.ranks.device
        return load_scalar_model(path, dtype=self.dtype, attention=self.attention, device=device)  # type: ignore[arg-type]

    def prompts(self) -> list[EncodedPrompt]:
        return encoded_prompts(self.tokenizer)

    def all(self) -> Iterator[Step]:
        for name in ("neox", "llama"):
            yield from self.supervised(name)
        yield from self.ranked()
        yield from self.preferred()
        yield from self.policy()
        yield from self.evaluation()

    def supervised(self, name: str) -> Iterator[Step]:
        """Stage 1 with NEFTune and a loss on prompts."""
        config = SftConfig.model_validate(
            {
                "train": {
                    "lr": 1e-3,
                    "epsilon": 1e-3,
                    "micro_tokens": 64,
                    "neftune_alpha": 5.0,
                    "prompt_loss_weight": 0.25,
                },
                "data": {"max_length": 64},
                "sampling": {"max_new_tokens": 6, "batch_size": 4},
            }
        )
        trained = TrainedModel(self.language(name), config.train, DeepSpeedSection(), self.ranks, dtype=self.dtype)
        batch = sequences(20, 31, 25, 40, 60)
        for number in (1, 2):
            yield f"{name} sft_step {number}", lambda: _numbers(sft_step(trained, batch, config, SCHEDULE, 1))
        yield f"{name} evaluate_sft", lambda: [evaluate_sft(trained, batch, config)["eval/loss"]]
        yield f"{name} sample_answers", lambda: _done(sample_answers(trained, self.tokenizer, self.prompts(), config))

    def ranked(self) -> Iterator[Step]:
        config = RewardConfig.model_validate(
            {
                "train": {"lr": 1e-3, "epsilon": 1e-3, "micro_tokens": 128, "margin": "scores", "centering": 0.1},
                "data": {"max_length": 64},
            }
        )
        trained = TrainedModel(self.scalar(), config.train, DeepSpeedSection(), self.ranks, dtype=self.dtype)
        rows = rankings(3, 2, 4, 2)
        for number in (1, 2):
            yield f"reward_step {number}", lambda: _numbers(reward_step(trained, rows, config, SCHEDULE, 1))
        yield "held_out_accuracy", lambda: _done(held_out_accuracy(trained, rows, config))

    def preferred(self) -> Iterator[Step]:
        """Preference optimisation on pairs and on marked answers, with the SFT term."""
        for loss in ("sigmoid", "kto"):
            config = dpo_config(loss)
            trained = TrainedModel(self.language(), config.train, DeepSpeedSection(), self.ranks, dtype=self.dtype)
            rows = referenced(loss)
            given = (trained, rows, config)
            yield f"preference_step {loss}", lambda given=given: _numbers(preference_step(*given, SCHEDULE, 1))
            yield f"evaluate_preferences {loss}", lambda given=given: _done(evaluate_preferences(*given))

    def policy(self, offload: bool = True) -> Iterator[Step]:
        """Iterations of stage 3 with a model per role, by part; the reference is parked while the others learn."""
        config, section = ppo_config(self.dtype), DeepSpeedSection()
        reference = InferenceModel(self.language(), section, self.ranks, dtype=self.dtype, offload=offload)
        scorer = InferenceModel(self.scalar(), section, self.ranks, dtype=self.dtype)
        parked = (reference,)
        actor = TrainedModel(
            self.language(), config.train, section, self.ranks, dtype=self.dtype, ema_decay=0.9, parked=parked
        )
        critic = TrainedModel(self.scalar(), config.critic, section, self.ranks, dtype=self.dtype, parked=parked)
        roles = Roles(actor, critic, reference, scorer)
        sources = RewardSources(config, self.ranks, (self.tokenizer, self.tokenizer), scorer, ())
        made: dict[str, Any] = {}

        def draw(step: int) -> None:
            made["samples"] = draw_answers(actor, self.tokenizer, self.prompts(), config, step)

        def gather(chosen: PpoConfig) -> None:
            made["done"] = gather_experience(made["samples"], roles, sources, chosen, 0.05).samples

        def learn(chosen: PpoConfig) -> None:
            _finite(update(roles, made["done"], chosen, 1.0, 1, kl_coefficient=0.05))

        for step in (1, 2):
            yield f"draw_answers {step}", lambda step=step: draw(step)
            yield (
                f"with_training_logprobs {step}",
                lambda: _done(with_training_logprobs(made["samples"], roles, config)),
            )
            yield f"gather_experience {step}", lambda: gather(config)
            yield f"update {step}", lambda: learn(config)
        for estimator, group in (("rloo", 2), ("grpo", 2), ("reinforce_pp", None)):
            other = ppo_config(self.dtype, estimator=estimator, samples_per_prompt=group)
            yield f"gather_experience {estimator}", lambda other=other: gather(other)
        in_loss = ppo_config(self.dtype, kl_in="loss", kl_estimator="k3")
        yield "gather_experience again", lambda: gather(config)
        yield "update, KL in the loss", lambda: learn(in_loss)
        yield "averaged weights", lambda: _averaged(actor)
        yield "state_dict", lambda: _on_cpu(actor.state_dict())

    def evaluation(self) -> Iterator[Step]:
        language, scalar = self.language().to(self.ranks.device), self.scalar().to(self.ranks.device)
        pairs = [(prompt.ids, sequences(6 + row)[0].ids) for row, prompt in enumerate(self.prompts())]
        trees = [(prompt, [answer, answer]) for prompt, answer in pairs]
        sampling = SamplingSection(max_new_tokens=6, max_prompt_tokens=40, batch_size=4)
        yield "answer_logprobs", lambda: _flat(answer_logprobs(language, pairs, temperature=1.0))
        yield "answer_scores", lambda: _flat(answer_scores(scalar, pairs))
        yield "tree_scores", lambda: _flat(tree_scores(scalar, trees))
        yield (
            "answer_prompts",
            lambda: _done(answer_prompts(language, self.tokenizer, self.prompts(), sampling, seed=1)),
        )


def encoded_prompts(tokenizer: ChatTokenizer) -> list[EncodedPrompt]:
    encoded = Encoder(tokenizer, 40).prompts([Prompt((Message("user", text),)) for text in TEXTS])
    return [replace(prompt, row=row) for row, prompt in enumerate(encoded)]


def sequences(*lengths: int) -> list[EncodedSequence]:
    rng = np.random.default_rng(sum(lengths))
    return [
        EncodedSequence(rng.integers(2, 300, length).astype(np.int32), np.arange(length) >= 6, "ab"[length % 2])
        for length in lengths
    ]


def rankings(*sizes: int) -> list[EncodedRanking]:
    rng = np.random.default_rng(7)
    return [
        EncodedRanking(
            rng.integers(2, 300, 10).astype(np.int32),
            tuple(rng.integers(2, 300, 5 + place).astype(np.int32) for place in range(size)),
            tuple(range(1, size + 1)),
            "x",
            tuple(float(size - place) for place in range(size)),
        )
        for size in sizes
    ]


def dpo_config(loss: str) -> DpoConfig:
    return DpoConfig.model_validate(
        {
            "train": {"lr": 1e-3, "epsilon": 1e-3, "micro_tokens": 128},
            "data": {"max_length": 64},
            "dpo": {"loss": loss, "sft_weight": 0.1},
            "sampling": {"max_new_tokens": 6, "max_prompt_tokens": 40, "batch_size": 4},
        }
    )


def referenced(loss: str) -> list[ReferencedRow]:
    """Rankings, or their answers marked good and bad, with numbers that stand for a reference's."""
    items: list[Any] = rankings(3, 2, 4, 2)
    if loss == "kto":
        items = [EncodedMarked(each.prompt, each.answers, tuple(rank == 1 for rank in each.ranks)) for each in items]
    known = [tuple(-40.0 - place for place in range(len(each.answers))) for each in items]
    others = answers_of_others(items, 64)
    return [ReferencedRow(*each, -30.0) for each in zip(items, known, others, strict=True)]


def ppo_config(dtype: str, attention: str = "auto", **ppo: Any) -> PpoConfig:
    """Of stage 3 with these fields of `ppo`, which need not fit its data keys."""
    config = PpoConfig.model_validate(
        {
            "model": {"dtype": dtype, "attention": attention},
            "train": {"lr": 1e-3, "micro_tokens": 128, "batch_size": 3},
            "ppo": {"rollout_size": 6, "entropy_weight": 0.01, "epochs": 1, "value_clip": 0.2},
            "sampling": {"max_new_tokens": 8, "max_prompt_tokens": 40, "batch_size": 4},
            "control": {"best_of": [2], "samples": 1, "max_prompts": 2},
            "data": {"max_length": 64},
        }
    )
    return config.model_copy(update={"ppo": config.ppo.model_copy(update=ppo)})


def _numbers(metrics: dict[str, float]) -> list[float]:
    return [metrics["loss"], metrics["grad_norm"]]


def _finite(metrics: dict[str, float]) -> None:
    wrong = [name for name, value in metrics.items() if not np.isfinite(value)]
    assert not wrong, wrong


def _done(result: object) -> None:
    assert result


def _averaged(actor: TrainedModel) -> None:
    with actor.averaged():
        _on_cpu(actor.state_dict())


def _on_cpu(state: dict[str, Any]) -> None:
    assert state
    assert all(value.device.type == "cpu" and bool(value.isfinite().all()) for value in state.values())


def _flat(values: Any) -> list[float]:
    if isinstance(values, (int, float, np.floating)):
        return [float(values)]
    return [number for each in values for number in _flat(each)]
