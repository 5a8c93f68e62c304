"""Solves the problem of tests/distributed/problem.py at several ZeRO stages and micro-batch sizes.

Started once with one rank and once with two. Writes numbers.json and weights.pt by names such as
"sft neox zero3 small"; the tests compare them with one another and with plain loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlhf.data.loader import RowStream
from rlhf.data.packing import plan_micro_batches
from rlhf.data.tokenizer import load_tokenizer
from rlhf.engine.deepspeed import TrainedModel
from rlhf.engine.ranks import Ranks, session
from rlhf.train.policy.experience import draw_answers, gather_experience
from rlhf.train.policy.reward_sources import RewardSources, TextSource
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.update import Demonstrations, demonstration_norm, learning_rates, minibatch
from rlhf.train.reward import reward_step
from rlhf.train.sft import evaluate_sft, sft_step
from tests.distributed.preferences import LOSSES
from tests.distributed.problem import (
    GROUP,
    KL_COEFFICIENT,
    LARGE,
    MINIBATCHES,
    NUM_GROUPS,
    RULE_WEIGHT,
    SCHEDULE,
    SMALL,
    STEP_NUMBERS,
    Problem,
    critic_free_config,
    options_config,
    ppo_config,
    reward_config,
    rule_scores,
    sft_config,
)
from tests.distributed.workers.building import Results, arguments, causal_lm, frozen, scalar_model
from tests.distributed.workers.preferences import run_preferences
from tests.distributed.workers.sharing import run_shared, run_still

SIZES = {"large": LARGE, "small": SMALL}
SOME_STAGES = (0, 2, 3)


def main() -> None:
    given, out = arguments()
    problem, paths = given["problem"], given["paths"]
    with session(seed=0) as ranks:
        results = Results(ranks)
        for size, micro_tokens in SIZES.items():
            note_rows(results, problem, size, micro_tokens)
            for stage in (0, 1, 2, 3):
                for name in ("neox", "llama"):
                    run_sft(results, problem, paths[name], f"sft {name} zero{stage} {size}", stage, micro_tokens)
            for stage in SOME_STAGES:
                run_reward(results, problem, paths["reward"], f"reward zero{stage} {size}", stage, micro_tokens)
                run_ppo(results, problem, paths, f"ppo zero{stage} {size}", stage, micro_tokens)
                run_critic_free(results, problem, paths, f"critic-free zero{stage} {size}", stage, micro_tokens)
        for stage in SOME_STAGES:
            run_options(results, problem, paths["neox"], f"options zero{stage}", stage)
            run_experience(results, problem, paths, f"experience zero{stage}", stage)
            for loss in LOSSES:
                run_preferences(results, problem, paths["neox"], loss, stage, out)
        run_shared(results, problem, paths)
        run_still(results, problem, paths)
        results.write(out)


def note_rows(results: Results, problem: Problem, size: str, micro_tokens: int) -> None:
    """How many rows each rank runs at each step, and how many of them are idle."""
    steps = []
    for batch in problem.demonstrations:
        plan = plan_micro_batches([len(item) for item in batch], micro_tokens, results.ranks.world_size)
        steps.append({"rows": [len(rows) for rows in plan], "idle": sum(not items for rows in plan for items in rows)})
    results.numbers[f"rows {size}"] = steps


def three_steps(trained: TrainedModel, batches: Sequence[Any], take: Callable[..., Any], config: Any) -> list[Any]:
    trained.train()
    return [take(trained, batch, config, SCHEDULE, step) for step, batch in zip(STEP_NUMBERS, batches, strict=True)]


def run_sft(results: Results, problem: Problem, path: str, name: str, stage: int, micro_tokens: int) -> None:
    config = sft_config(micro_tokens)
    trained = causal_lm(path, stage, config.train, results.ranks)
    results.numbers[name] = three_steps(trained, problem.demonstrations, sft_step, config)
    results.weights[f"{name} model"] = trained.state_dict()


def run_options(results: Results, problem: Problem, path: str, name: str, stage: int) -> None:
    """Weights and their average after each of three steps, and the held-out loss of the average."""
    config = options_config()
    trained = causal_lm(path, stage, config.train, results.ranks, ema_decay=config.train.ema_decay)
    trained.train()
    results.numbers[name] = []
    for number, batch in enumerate(problem.demonstrations):
        metrics = sft_step(trained, batch, config, SCHEDULE, STEP_NUMBERS[number])
        results.weights[f"{name} live {number + 1}"] = trained.state_dict()
        with trained.averaged():
            metrics |= evaluate_sft(trained, problem.demonstrations[0], config)
            results.weights[f"{name} average {number + 1}"] = trained.state_dict()
        results.numbers[name].append(metrics)


def run_reward(results: Results, problem: Problem, path: str, name: str, stage: int, micro_tokens: int) -> None:
    config = reward_config(micro_tokens)
    trained = scalar_model(path, stage, config.train, results.ranks)
    results.numbers[name] = three_steps(trained, problem.rankings, reward_step, config)
    results.weights[f"{name} model"] = trained.state_dict()


def run_ppo(
    results: Results, problem: Problem, paths: dict[str, str], name: str, stage: int, micro_tokens: int
) -> None:
    config = ppo_config(micro_tokens)
    actor = causal_lm(paths["neox"], stage, config.train, results.ranks)
    critic = scalar_model(paths["reward"], stage, config.critic, results.ranks)
    roles: Any = Roles(actor, critic, reference=None, reward=None)  # the update needs neither
    results.numbers[name] = [
        minibatch(roles, batch, config, learning_rates(config, SCHEDULE.factor(step), step), step)
        for step, batch in zip(STEP_NUMBERS, problem.samples, strict=True)
    ]
    results.weights[f"{name} actor"] = actor.state_dict()
    results.weights[f"{name} critic"] = critic.state_dict()


def run_critic_free(
    results: Results, problem: Problem, paths: dict[str, str], name: str, stage: int, micro_tokens: int
) -> None:
    """Advantages of groups, then three minibatches with KL and demonstrations in the loss."""
    config, ranks = critic_free_config(micro_tokens), results.ranks
    actor = causal_lm(paths["neox"], stage, config.train, ranks)
    reference = frozen(paths["reference"], stage, ranks, scalar=False)
    roles: Any = Roles(actor, None, reference, frozen(paths["scorer"], stage, ranks, scalar=True))
    tokenizer = load_tokenizer(paths["neox"], "kullm")
    # Other ranks must not call it: they would get something else.
    rule = TextSource("rule", "", RULE_WEIGHT, lambda asked: rule_scores(len(asked.answers)) if ranks.is_main else 0)
    sources = RewardSources(config, ranks, (tokenizer, tokenizer), roles.reward, [rule])
    answered = problem.samples[0][: NUM_GROUPS * GROUP]
    made = gather_experience(answered, roles, sources, config, KL_COEFFICIENT).samples
    results.numbers[name] = []
    for step, part, shown in zip(STEP_NUMBERS, MINIBATCHES, problem.demonstrations, strict=True):
        rates = learning_rates(config, SCHEDULE.factor(step), step)
        coming = Demonstrations(shown, RowStream((len(shown),), (1.0,), 0, len(shown), 1.0))
        norm = demonstration_norm(roles, coming, config)
        metrics = minibatch(roles, made[part], config, rates, step, kl_coefficient=KL_COEFFICIENT, demonstrations=shown)
        results.numbers[name].append({**metrics, "policy/ptx_grad_norm": norm})
    results.weights[f"{name} actor"] = actor.state_dict()


def run_experience(results: Results, problem: Problem, paths: dict[str, str], name: str, stage: int) -> None:
    """Scores, values, advantages of given answers; then answers drawn anew."""
    config, ranks = ppo_config(SMALL), results.ranks
    roles = build_roles(paths, stage, ranks)
    tokenizer = load_tokenizer(paths["neox"], "kullm")
    sources = RewardSources(config, ranks, (tokenizer, tokenizer), roles.reward)
    made = gather_experience(problem.answered, roles, sources, config, KL_COEFFICIENT)
    results.numbers[name] = [
        {
            "score": sample.score,
            "values": sample.values.tolist(),
            "reference_logprobs": sample.reference_logprobs.tolist(),
            "advantages": sample.advantages.tolist(),
            "returns": sample.returns.tolist(),
        }
        for sample in made.samples
    ]
    drawn = draw_answers(roles.actor, tokenizer, [sample.prompt for sample in problem.answered], config, step=4)
    results.numbers[f"drawn {name}"] = [
        {"response": each.response.tolist(), "logprobs": each.old_logprobs.tolist(), "finished": each.finished}
        for each in drawn
    ]


def build_roles(paths: dict[str, str], stage: int, ranks: Ranks) -> Roles:
    config = ppo_config(SMALL)
    return Roles(
        actor=causal_lm(paths["neox"], stage, config.train, ranks),
        critic=scalar_model(paths["reward"], stage, config.critic, ranks),
        reference=frozen(paths["reference"], stage, ranks, scalar=False),
        reward=frozen(paths["scorer"], stage, ranks, scalar=True),
    )


if __name__ == "__main__":
    main()
