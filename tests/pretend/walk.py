"""Every step of the three stages, evaluation, sampling and service on the pretend GPU, in a process of its own.

    python -m tests.pretend.walk MODELS OUT

MODELS is a folder of tiny models; OUT receives, by "DTYPE ATTENTION" and step, its error if it has one, and its counts
(`Counted`).
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.attention.varlen as kernels

from tests.support.pretend_gpu import DEVICE, PretendGpu, counted  # isort: skip  # it patches torch

import rlhf.engine.deepspeed as separate_engine
import rlhf.engine.shared as shared_engine
from rlhf.config.ppo import PpoConfig
from rlhf.config.role_paths import RolePaths
from rlhf.config.schema import RewardConfig, SftConfig
from rlhf.config.sections import DeepSpeedSection, SamplingSection
from rlhf.curate.sample.options import SampleOptions
from rlhf.curate.sample.sampler import sample_answers as sample_file
from rlhf.data.encode import EncodedPrompt, EncodedSequence
from rlhf.data.loader import RowStream
from rlhf.data.packing import ROW_TENSORS, PackedRow
from rlhf.data.records import Message, Prompt, Ranking
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.doctor.checks import Check
from rlhf.doctor.proofs_head import model_head_proof
from rlhf.engine.deepspeed import InferenceModel, TrainedModel
from rlhf.engine.ranks import Ranks
from rlhf.evaluate.answers.perplexity import reference_likelihood
from rlhf.evaluate.answers.policy import answer_logprobs, answer_prompts
from rlhf.evaluate.reward.test_set import build_test_set, score_test_set
from rlhf.models import attention_choice
from rlhf.models.head import install_head
from rlhf.models.loading import PackedCausalLM, PackedScalarModel, load_causal_lm, load_scalar_model
from rlhf.models.scoring import answer_scores, tree_scores
from rlhf.models.shared import SharedBackbone
from rlhf.rollout.decoding import Decoder
from rlhf.rollout.sequences import ActiveSequence, Decoding
from rlhf.serve.chat.batching import AnswerRequest, Batcher
from rlhf.train.policy import shared_roles
from rlhf.train.policy.control_group import run_control
from rlhf.train.policy.drafts import Drafts
from rlhf.train.policy.experience import draw_answers, gather_experience, with_training_logprobs
from rlhf.train.policy.reuse import Reuse
from rlhf.train.policy.reward_sources import RewardSources
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.samples import Sample
from rlhf.train.policy.update import Demonstrations, update
from rlhf.train.preference.evaluation import evaluate_preferences, sampled_kl
from rlhf.train.preference.step import preference_step
from rlhf.train.ranking_rows import pack_rankings
from rlhf.train.reward import held_out_accuracy, reward_step, score_trees
from rlhf.train.sft import evaluate_sft, sample_answers, sft_step
from tests.support import stage_steps
from tests.support.pretend_engine import plain_engine, plain_varlen
from tests.support.stage_steps import SCHEDULE, TEXTS, rankings, sequences

RANKS = Ranks(0, 0, 1, DEVICE)
SECTION = DeepSpeedSection()


@dataclass
class Counted:
    """One step: forward passes of packed rows and of decode steps, and what each line waited for or copied."""

    error: str = ""
    rows: int = 0
    decodes: int = 0
    synchronisations: list[tuple[str, str, int]] = field(default_factory=list)
    copies: list[tuple[str, str, int]] = field(default_factory=list)


WORK: Counter[str] = Counter()


def count_work() -> None:
    """Makes packed rows that are moved and decode steps count themselves in WORK."""
    to, step = PackedRow.to, Decoder.step

    def move(row: PackedRow, device: torch.device) -> PackedRow:
        WORK["rows"] += row.input_ids.device.type != device.type
        return to(row, device)

    def decode(decoder: Decoder) -> list[ActiveSequence]:
        WORK["decodes"] += 1
        return step(decoder)

    PackedRow.to, Decoder.step = move, decode  # type: ignore[method-assign]


class Walk:
    """Runs steps and records their counts."""

    def __init__(self, folder: Path, dtype: str, attention: str) -> None:
        self.folder, self.dtype, self.attention = folder, dtype, attention
        self.tokenizer: ChatTokenizer = load_tokenizer(str(folder / "neox"), "kullm")
        self.steps: dict[str, Counted] = {}

    def step(self, name: str, action: Callable[[], Any]) -> Any:
        found, result = Counted(), None
        WORK.clear()
        with counted() as counts:
            try:
                result = action()
            except Exception as error:  # noqa: BLE001  # the test reports it, and further steps are still walked
                lines = [frame for frame in traceback.extract_tb(error.__traceback__) if "/rlhf/" in frame.filename]
                place = ", ".join(f"{frame.filename.rpartition('/rlhf/')[2]}:{frame.lineno}" for frame in lines[-3:])
                found.error = f"{type(error).__name__}: {error} at {place}"
        found.rows, found.decodes = WORK["rows"], WORK["decodes"]
        found.synchronisations = [(*key, count) for key, count in counts.synchronisations.most_common()]
        found.copies = [(*key, count) for key, count in counts.copies.most_common()]
        self.steps[name] = found
        return result

    def language(self, name: str = "neox") -> PackedCausalLM:
        """On the device, its head computing in chunks."""
        model = load_causal_lm(str(self.folder / name), dtype=self.dtype, attention=self.attention)
        install_head(model.model, "chunked")
        return model.to(DEVICE)

    def scalar(self) -> PackedScalarModel:
        path = str(self.folder / "reward")
        return load_scalar_model(path, dtype=self.dtype, attention=self.attention).to(DEVICE)

    def prompts(self) -> list[EncodedPrompt]:
        return stage_steps.encoded_prompts(self.tokenizer)


def ppo_config(walk: Walk, **ppo: Any) -> PpoConfig:
    return stage_steps.ppo_config(walk.dtype, walk.attention, **ppo)


def policy_steps(walk: Walk, name: str, roles: Roles, demonstrations: Sequence[EncodedSequence]) -> list[Sample]:
    """One iteration of stage 3, with every estimator and term of the loss."""
    config, tokenizer = ppo_config(walk), walk.tokenizer
    sources = RewardSources(config, RANKS, (tokenizer, tokenizer), roles.reward, ())
    samples: list[Sample] = walk.step(
        f"{name} draw_answers", lambda: draw_answers(roles.actor, tokenizer, walk.prompts(), config, 1)
    )
    reuse, warmer = Reuse(Drafts(RANKS), 200), config.sampling.model_copy(update={"temperature": 1.5})  # rejects some
    for step, chosen in ((2, config), (3, config.model_copy(update={"sampling": warmer}))):
        walk.step(
            f"{name} reuse step {step}",
            lambda step=step, chosen=chosen: reuse.draw(roles.actor, tokenizer, walk.prompts(), chosen, step),
        )
        shares = reuse.completed()
    walk.step(f"{name} drafts", lambda: require_rejections(shares))
    walk.step(f"{name} with_training_logprobs", lambda: with_training_logprobs(samples, roles, config))
    done = walk.step(f"{name} experience gae", lambda: gather_experience(samples, roles, sources, config, 0.05))
    for estimator, group in (("rloo", 2), ("grpo", 2), ("reinforce_pp", None)):
        other = ppo_config(walk, estimator=estimator, samples_per_prompt=group)
        walk.step(
            f"{name} experience {estimator}",
            lambda other=other: gather_experience(samples, roles, sources, other, 0.05),
        )
    in_loss = ppo_config(walk, kl_in="loss", kl_estimator="k3")
    ptx = ppo_config(walk, ptx_weight=0.5)
    shown = Demonstrations(demonstrations, RowStream((len(demonstrations),), (1.0,), 1, 2, 1))
    for term, chosen, extra in (("", config, None), (" kl in loss", in_loss, None), (" ptx", ptx, shown)):
        walk.step(
            f"{name} update{term}",
            lambda chosen=chosen, extra=extra: update(
                roles, done.samples, chosen, 1.0, 1, kl_coefficient=0.05, demonstrations=extra
            ),
        )
    run: Any = SimpleNamespace(
        config=config,
        dry_run=True,  # two prompts, and no trackers
        ranks=RANKS,
        folder=SimpleNamespace(path=walk.folder),
        step=1,
        say=lambda _: None,
        on_main=RANKS.on_main,
    )
    walk.step(f"{name} control group", lambda: run_control(run, roles, sources, tokenizer, walk.prompts()[:2]))
    walk.step(f"{name} state_dict", lambda: check_on_cpu(roles.actor.state_dict()))
    return samples


def require_rejections(shares: dict[str, float]) -> None:
    assert 0 < shares["rollout/accepted_share"] < 1, shares


def require_passed(check: Check) -> None:
    assert check.state == "passed", check


def check_on_cpu(state: dict[str, torch.Tensor]) -> None:
    assert state
    assert all(value.device.type == "cpu" for value in state.values())


def separate(walk: Walk) -> None:
    """Stage 3 with a model for each role."""
    config = ppo_config(walk)
    with PretendGpu():
        actor = TrainedModel(walk.language(), config.train, SECTION, RANKS, dtype=walk.dtype, ema_decay=0.9)
        critic = TrainedModel(walk.scalar(), config.critic, SECTION, RANKS, dtype=walk.dtype)
        language = load_causal_lm(str(walk.folder / "neox"), dtype=walk.dtype, attention=walk.attention)
        install_head(language.model, "chunked")
        reference = InferenceModel(language, SECTION, RANKS, dtype=walk.dtype, offload=True)
        reward = InferenceModel(walk.scalar(), SECTION, RANKS, dtype=walk.dtype)
    walk.step("head proof", lambda: require_passed(model_head_proof(actor, sequences(20)[0])))
    policy_steps(walk, "separate", Roles(actor, critic, reference, reward), sequences(20, 30, 25))


def shared(walk: Walk) -> None:
    """Stage 3 with all roles on one backbone, which two LoRA runs adapt."""
    config = ppo_config(walk, roles="shared")
    build = shared_roles.build_backbone

    def on_device(*args: Any) -> SharedBackbone:
        return build(*args).to(DEVICE)  # as DeepSpeed does, but before the optimizer is made

    shared_roles.build_backbone = on_device
    run: Any = SimpleNamespace(config=config, ranks=RANKS, say=lambda _: None)
    actor, reward = (str(walk.folder / name / "model") for name in ("sft-run", "reward-run"))
    with PretendGpu():
        roles = shared_roles.build_shared(run, RolePaths(actor, actor, reward, reward), walk.tokenizer, walk.tokenizer)
    shared_roles.build_backbone = build
    policy_steps(walk, "shared", roles, sequences(20, 30, 25))


def supervised(walk: Walk) -> None:
    config = SftConfig.model_validate(
        {
            "train": {"micro_tokens": 64, "neftune_alpha": 5.0, "prompt_loss_weight": 0.25},
            "data": {"max_length": 64},
            "sampling": {"max_new_tokens": 6, "batch_size": 4},
        }
    )
    for name in ("neox", "llama"):
        with PretendGpu():
            trained = TrainedModel(walk.language(name), config.train, SECTION, RANKS, dtype=walk.dtype)
        batch = sequences(20, 31, 25, 40, 60)
        walk.step(f"{name} sft_step", lambda t=trained, b=batch: sft_step(t, b, config, SCHEDULE, 1))
        walk.step(f"{name} evaluate_sft", lambda t=trained, b=batch: evaluate_sft(t, b, config))
        walk.step(
            f"{name} sample_answers", lambda t=trained: sample_answers(t, walk.tokenizer, walk.prompts()[:3], config)
        )


def ranked(walk: Walk) -> None:
    config = RewardConfig.model_validate(
        {"train": {"micro_tokens": 128, "margin": "scores", "centering": 0.1}, "data": {"max_length": 64}}
    )
    with PretendGpu():
        trained = TrainedModel(walk.scalar(), config.train, SECTION, RANKS, dtype=walk.dtype)
    rows = rankings(3, 2, 4, 2)
    walk.step("reward_step", lambda: reward_step(trained, rows, config, SCHEDULE, 1))
    walk.step("held_out_accuracy", lambda: held_out_accuracy(trained, rows, config))
    records = [Ranking((Message("user", text),), ("네, 좋아요!", "몰라."), (1, 2)) for text in TEXTS[:3]]
    test_set = build_test_set(records, walk.tokenizer, 64)
    walk.step(
        "report card",
        lambda: score_test_set(test_set, lambda trees: score_trees(trained, trees, 128), max_tokens=128),
    )


def preferred(walk: Walk) -> None:
    for loss in ("sigmoid", "kto"):
        config = stage_steps.dpo_config(loss)
        with PretendGpu():
            trained = TrainedModel(walk.language(), config.train, SECTION, RANKS, dtype=walk.dtype)
        rows = stage_steps.referenced(loss)
        start = trained.starting_weights(walk.folder / f"{walk.dtype}-{walk.attention}-{loss}")
        walk.step(f"preference_step {loss}", lambda t=trained, r=rows, c=config: preference_step(t, r, c, SCHEDULE, 1))
        walk.step(f"evaluate_preferences {loss}", lambda t=trained, r=rows, c=config: evaluate_preferences(t, r, c))
        walk.step(
            f"sampled_kl {loss}",
            lambda t=trained, s=start, c=config: sampled_kl(t, s, walk.tokenizer, walk.prompts()[:3], c),
        )


def evaluation(walk: Walk) -> None:
    pairs = [(prompt.ids, sequences(6 + row)[0].ids) for row, prompt in enumerate(walk.prompts())]
    policy = str(walk.folder / "sft-run" / "model")
    referenced = [Prompt((Message("user", text),), "x", "네, 그래요.") for text in TEXTS[:3]]
    walk.step(
        "evaluate references",
        lambda: reference_likelihood(policy, referenced, dtype=walk.dtype, device=DEVICE),
    )
    with PretendGpu():
        language, scalar = walk.language(), walk.scalar()
    walk.step("answer_logprobs", lambda: answer_logprobs(language, pairs, temperature=1.0))
    walk.step("answer_scores", lambda: answer_scores(scalar, pairs))
    walk.step("tree_scores", lambda: tree_scores(scalar, [(prompt, [answer, answer]) for prompt, answer in pairs]))
    sampling = SamplingSection(max_new_tokens=6, max_prompt_tokens=40, batch_size=4)
    walk.step("answer_prompts", lambda: answer_prompts(language, walk.tokenizer, walk.prompts(), sampling, seed=1))
    prompts = walk.folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS[:3]), encoding="utf-8")
    options = SampleOptions(
        str(prompts),
        walk.folder / f"{walk.dtype}-{walk.attention}.jsonl",
        (policy,),
        k=2,
        dtype=walk.dtype,
        sampling=sampling,
    )
    walk.step("data sample", lambda: sample_file(options, RANKS))


def decoding(walk: Walk) -> None:
    """The loop of rollouts alone, with equal settings and with mixed ones, and inside the service's thread."""
    mixed = [Decoding(0.0), Decoding(1.0), Decoding(0.8, 0, 0.9), Decoding(1.2, 5, 1.0)]
    rng = np.random.default_rng(3)
    for name in ("neox", "llama"):
        with PretendGpu():
            model = walk.language(name).eval().model

        def run(settings: Sequence[Decoding], likeliest: int | None, model: Any = model) -> None:
            decoder = Decoder(model, -1, num_slots=4)
            decoder.admit(
                ActiveSequence(prompt.ids, rng.random(6 + row), settings[row % len(settings)], num_likeliest=likeliest)
                for row, prompt in enumerate(walk.prompts())
            )
            while decoder.busy:
                decoder.step()

        walk.step(f"{name} decode", lambda run=run: run([Decoding(1.0)], None))
        walk.step(f"{name} decode mixed", lambda run=run: run(mixed, 3))
    walk.step("service", lambda: asyncio.run(serve(walk, model)))


class PretendBatcher(Batcher):
    """The service's thread, on the pretend GPU."""

    def _run(self) -> None:
        with PretendGpu():
            super()._run()


async def serve(walk: Walk, model: Any) -> None:
    observer: Any = SimpleNamespace(step=lambda _: None, first_token=lambda _: None)
    with PretendGpu():
        decoder = Decoder(model, -1, num_slots=3, enter_above=1.0)
    batcher = PretendBatcher(decoder, -1, walk.tokenizer.text, num_slots=3, queue=9, observer=observer)
    try:
        pending = [
            batcher.submit([AnswerRequest(prompt.ids, 5 + row, Decoding(1.0), seed=row, num_likeliest=2)])
            for row, prompt in enumerate(walk.prompts())
        ]
        for each in pending:
            async for _ in each.deltas():
                pass
    finally:
        batcher.close()


def device_itself(walk: Walk) -> None:
    """What the pretend GPU must refuse and count, and a row that arrives as it was."""
    host = torch.arange(4.0)
    with PretendGpu():
        there = host.to(DEVICE)
    walk.step("refused: two devices", lambda: there + host)
    walk.step("refused: numpy", there.numpy)
    walk.step("counted: item", lambda: float(there.sum()))
    walk.step("counted: index by a mask", lambda: there[there > 1])
    walk.step("counted: copy from pageable memory", lambda: host.to(DEVICE, non_blocking=True))
    walk.step("counted: a new tensor from the host", lambda: torch.tensor([1.0, 2.0], device=DEVICE))
    walk.step("counted: nothing", lambda: torch.full((), 2.0, device=DEVICE) * there)
    walk.step("counted: a row", lambda: row_arrives(pack_rankings(rankings(3, 2), margin_scale=0.5)))


def row_arrives(row: PackedRow) -> None:
    """Moves a row and compares every tensor with what left."""
    moved: Any = row.to(DEVICE)
    pairs = [(getattr(row, name), getattr(moved, name)) for name in ROW_TENSORS]
    pairs += [(row.carried[name], moved.carried[name]) for name in row.carried]
    for before, after in pairs:
        assert (after.device, after.dtype, after.shape) == (DEVICE, before.dtype, before.shape)
        assert torch.equal(after.host, before)


def loading(walk: Walk) -> None:
    """What no file holds of a model is computed when it is loaded."""
    for name in ("neox", "llama"):
        with PretendGpu():
            model: Any = walk.language(name).model
        walk.step(f"{name} loaded", lambda model=model: check_angles(model))


def check_angles(model: Any) -> None:
    """The rotary frequencies by their formula, arXiv:2104.09864 section 3.2.2."""
    (found,) = (buffer.host for name, buffer in model.named_buffers() if name.endswith("rotary_emb.inv_freq"))
    exponents = torch.arange(len(found), dtype=torch.float64) / len(found)
    torch.testing.assert_close(found.double(), 10000.0**-exponents, rtol=1e-5, atol=0)


def main(folder: str, out: str, dtype: str, attention: str) -> None:
    separate_engine.wrapped_engine = shared_engine.wrapped_engine = plain_engine  # type: ignore[assignment]
    kernels.varlen_attn = plain_varlen  # type: ignore[assignment]
    attention_choice.varlen_obstacle = lambda *_: ""  # the plain kernel runs in every type
    count_work()
    walk = Walk(Path(folder), dtype, attention)
    for part in (device_itself, loading, separate, shared, supervised, ranked, preferred, evaluation, decoding):
        part(walk)
    found = {name: asdict(step) for name, step in walk.steps.items()}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
