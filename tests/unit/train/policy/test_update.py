"""Which roles learn from a minibatch, and from what, seen in gradients of models that are tables."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rlhf.config.ppo import PpoConfig
from rlhf.data.encode import EncodedSequence
from rlhf.data.loader import RowStream
from rlhf.train.policy import update as module
from rlhf.train.policy.roles import Roles
from rlhf.train.policy.update import (
    Demonstrations,
    Tally,
    demonstration_norm,
    epoch_order,
    learning_rates,
    minibatch,
    update,
)
from tests.support.tables import EOS, RATES, VOCABULARY, Table, ppo_config, sample

UNIFORM = -math.log(VOCABULARY)


def tables(tokens: int, *, critic: bool = True) -> tuple[Table, Table, Any]:
    """An actor and a critic that say 0 everywhere, for rows of so many tokens."""
    actor, values = Table(torch.zeros(tokens, VOCABULARY)), Table(torch.zeros(tokens, 1))
    values.forward = lambda row: values.values[row.positions, 0]  # type: ignore[method-assign]
    roles: Any = Roles(actor, values if critic else None, None, None)  # type: ignore[arg-type]
    return actor, values, roles


def taught() -> PpoConfig:
    """Demonstrations weigh 0.5."""
    return PpoConfig.model_validate({"data": {"ptx": "rows.jsonl"}, "ppo": {"ptx_weight": 0.5}})


def demonstration(*ids: int) -> EncodedSequence:
    """The first token is the prompt."""
    return EncodedSequence(np.asarray(ids, np.int32), np.arange(len(ids)) > 0)


def test_only_the_critic_learns_while_it_warms_up() -> None:
    actor, critic, roles = tables(4)
    config = ppo_config(value_warmup_steps=2)
    metrics = minibatch(roles, [sample([2, 3], [5, EOS])], config, learning_rates(config, 1.0, 2), 2)
    assert actor.values.grad is None
    assert actor.steps == []
    assert critic.learning == [1, 2]
    assert critic.steps == [config.critic.lr]
    assert metrics["loss"] == pytest.approx(0.5)  # half the squared error of 1
    assert "policy/loss" not in metrics
    assert learning_rates(config, 0.5, 3) == {"actor": config.train.lr / 2, "critic": config.critic.lr / 2}


def test_without_a_critic_the_actor_learns_alone() -> None:
    actor, _, roles = tables(4, critic=False)
    config = ppo_config(estimator="rloo")
    one = sample([2, 3], [5, EOS], values=None)
    metrics = minibatch(roles, [one], config, learning_rates(config, 1.0, 1), 1)
    assert actor.learning == [1, 2]
    assert actor.steps == [config.train.lr]
    assert metrics["loss"] == metrics["policy/loss"] == pytest.approx(-1)
    assert not {"value/loss", "value/grad_norm"} & metrics.keys()


def test_kl_in_the_loss_pulls_towards_the_reference() -> None:
    """k2 with d = -0.5 on the first of two tokens, coefficient 0.2: d loss / d logprob = 0.2 * -0.5 / 2 there, and a
    logprob moves with its own logit by 1 - 1/7. Advantages are 0, so nothing else pulls."""
    actor, _, roles = tables(4)
    config = ppo_config(kl_in="loss", kl_estimator="k2")
    one = sample(
        [2, 3],
        [5, EOS],
        advantages=np.zeros(2, np.float32),
        reference_logprobs=np.asarray([UNIFORM + 0.5, UNIFORM], np.float32),
    )
    metrics = minibatch(roles, [one], config, RATES, 1, kl_coefficient=0.2)
    assert float(actor.values.grad[2].abs().max()) < 1e-7  # d is 0 there, up to rounding
    assert actor.values.grad[1, 5].item() == pytest.approx(-0.05 * 6 / 7, rel=1e-5)  # descent raises token 5
    assert metrics["policy/kl_loss"] == pytest.approx(0.2 * 0.125 / 2, rel=1e-5)
    assert metrics["policy/loss"] == 0
    assert metrics["loss"] == pytest.approx(0.2 * 0.125 / 2 + metrics["value/loss"], rel=1e-5)


def test_the_largest_ratio_is_reported() -> None:
    _, _, roles = tables(4)
    old = np.asarray([UNIFORM - math.log(3), UNIFORM + 1], np.float32)  # ratios 3 and 1/e
    metrics = minibatch(roles, [sample([2, 3], [5, EOS], old_logprobs=old)], ppo_config(), RATES, 1)
    assert metrics["policy/ratio_max"] == pytest.approx(3.0, rel=1e-5)


def test_demonstrations_add_their_cross_entropy() -> None:
    """Two answer tokens: nats log 7, gradient -(1 - 1/7) / 2 on each one's own logit, times the weight 0.5.

    The sample's advantages are 0; its row and the demonstrations' are both of 3 tokens, so one table serves.
    """
    actor, _, roles = tables(3)
    config = taught()
    idle = sample([2], [5, EOS], advantages=np.zeros(2, np.float32))
    metrics = minibatch(roles, [idle], config, RATES, 1, demonstrations=[demonstration(2, 4, 6)])
    assert metrics["policy/ptx_loss"] == pytest.approx(math.log(7), rel=1e-6)
    own = [actor.values.grad[0, 4].item(), actor.values.grad[1, 6].item()]
    assert own == pytest.approx([-0.5 * 6 / 7 / 2] * 2, rel=1e-5)
    assert metrics["loss"] == pytest.approx(0.5 * math.log(7) + metrics["value/loss"], rel=1e-6)
    assert metrics["tokens"] == 6


def demonstrations(*rows: EncodedSequence, batch_size: int) -> Demonstrations:
    return Demonstrations(rows, RowStream((len(rows),), (1.0,), 7, batch_size, 1.0))


def test_the_norm_of_the_demonstrations_gradient_is_reported_and_nothing_moves() -> None:
    """Each of two places: p - onehot = 6/7 once and 1/7 six times, over 2 tokens, times 0.5."""
    actor, _, roles = tables(3)
    shown = demonstrations(demonstration(2, 4, 6), batch_size=1)
    found = demonstration_norm(roles, shown, taught())
    assert found == pytest.approx(0.25 * math.sqrt(2 * ((6 / 7) ** 2 + 6 / 49)), rel=1e-5)
    assert shown.consumed == 0
    assert actor.values.grad is None
    assert actor.steps == []


def test_demonstrations_go_on_past_an_epoch() -> None:
    rows = [demonstration(2, number) for number in (1, 2, 3)]
    taken = demonstrations(*rows, batch_size=2)
    seen = [int(item.ids[1]) for _ in range(3) for item in taken.take()]
    assert sorted(seen[:3]) == sorted(seen[3:]) == [1, 2, 3]
    assert taken.consumed == 6
    again = demonstrations(*rows, batch_size=2)
    again.consumed = 4
    assert [int(item.ids[1]) for item in again.take()] == seen[4:]


def test_epochs_end_after_one_that_moved_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two minibatches per epoch, limit 0.2. The first epoch has one above it but a mean of 0.15; the second, 0.3."""
    moves = iter([0.05, 0.25, 0.5, 0.1, 9.0, 9.0])
    monkeypatch.setattr(
        module,
        "minibatch",
        lambda *_, **__: {"policy/approx_kl": next(moves), "policy/ratio_max": 2.0, "loss": 1.0},
    )
    _, _, roles = tables(4)
    samples = [sample([2, 3], [5, EOS]), sample([2, 3], [6, EOS])]
    metrics = update(roles, samples, ppo_config(epochs=3, max_kl_per_iteration=0.2), 1.0, 1)
    assert metrics["policy/epochs_done"] == 2
    assert metrics["policy/approx_kl"] == pytest.approx(0.9 / 4)
    assert list(moves) == [9.0, 9.0]


def test_all_epochs_are_run_without_a_limit_and_the_largest_ratio_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    ratios = iter([1.5, 4.0, 2.0, 1.0])
    found = lambda *_, **__: {"policy/approx_kl": 50.0, "policy/ratio_max": next(ratios), "loss": 1.0}  # noqa: E731
    monkeypatch.setattr(module, "minibatch", found)
    _, _, roles = tables(4)
    metrics = update(roles, [sample([2, 3], [5, EOS])] * 2, ppo_config(epochs=2), 1.0, 1)
    assert metrics == {"policy/approx_kl": 50.0, "policy/ratio_max": 4.0, "loss": 1.0, "policy/epochs_done": 2}


def test_every_epoch_has_an_order_of_its_own() -> None:
    """Seed, step and epoch each change it; every order holds each sample once."""
    plain = epoch_order(20, 1, 2, 0)
    assert sorted(plain) == list(range(20))
    assert plain == epoch_order(20, 1, 2, 0)
    others = [epoch_order(20, 9, 2, 0), epoch_order(20, 1, 9, 0), epoch_order(20, 1, 2, 1)]
    assert all(other != plain for other in others)


def test_minibatches_of_an_iteration_follow_the_order_of_their_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    def keep(_: Any, batch: list[Any], *__: Any, **___: Any) -> dict[str, float]:
        seen.append([int(each.response[0]) for each in batch])
        return {"loss": 1.0}

    monkeypatch.setattr(module, "minibatch", keep)
    _, _, roles = tables(4)
    samples = [sample([2], [number, EOS]) for number in range(1, 7)]
    config = PpoConfig.model_validate({"run": {"seed": 5}, "train": {"batch_size": 4}, "ppo": {"epochs": 2}})
    update(roles, samples, config, 1.0, 3)
    assert [len(batch) for batch in seen] == [4, 2, 4, 2]
    for epoch, batches in enumerate((seen[:2], seen[2:])):
        assert [number - 1 for batch in batches for number in batch] == epoch_order(6, 5, 3, epoch)


def test_demonstrations_wait_until_the_actor_learns() -> None:
    actor, _, roles = tables(3)
    config = PpoConfig.model_validate(
        {"train": {"batch_size": 1}, "data": {"ptx": "rows.jsonl"}, "ppo": {"ptx_weight": 0.5, "value_warmup_steps": 1}}
    )
    shown = demonstrations(demonstration(2, 4, 6), batch_size=1)
    metrics = update(roles, [sample([2], [5, EOS])], config, 1.0, 1, demonstrations=shown)
    assert actor.values.grad is None
    assert shown.consumed == 0
    assert not {"policy/ptx_loss", "policy/ptx_grad_norm"} & metrics.keys()


def test_clips_are_those_of_the_configuration() -> None:
    """Ratio 3 with an advantage of 1, cut at 1.5; a value of 0 that was -1, clipped to -0.8, is 1.8 off its return."""
    _, _, roles = tables(3)
    old = np.full(2, UNIFORM - math.log(3), np.float32)
    one = sample([2], [5, EOS], old_logprobs=old, values=-np.ones(2, np.float32))
    metrics = minibatch(roles, [one], ppo_config(clip=0.5, value_clip=0.2), RATES, 1)
    assert metrics["policy/loss"] == pytest.approx(-1.5, rel=1e-5)
    assert metrics["value/loss"] == pytest.approx(0.5 * 1.8**2, rel=1e-5)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_largest_ratio_is_that_of_any_row_and_any_rank(order: tuple[int, int]) -> None:
    """Two rows with ratios 3 and 1; another rank found 2, or 9."""
    samples = [
        sample([2], [5, EOS], old_logprobs=np.full(2, UNIFORM - math.log(ratio), np.float32)) for ratio in (3, 1)
    ]
    config = ppo_config()
    config = config.model_copy(update={"train": config.train.model_copy(update={"micro_tokens": 3})})
    actor, _, roles = tables(3)
    assert minibatch(roles, [samples[number] for number in order], config, RATES, 1)[
        "policy/ratio_max"
    ] == pytest.approx(3.0, rel=1e-5)
    assert len(actor.rows) == 2
    tally = Tally()
    for number in order:
        tally.note_ratio(torch.tensor((3.0, 1.0)[number]))
    for elsewhere, largest in ((2.0, 3.0), (9.0, 9.0)):
        # The sum over two ranks, each with the other's place 0.
        summed = SimpleNamespace(
            rank=0, world_size=2, global_sum=lambda *own, there=elsewhere: [own[0].item(), own[1] + there]
        )
        assert tally.totals(summed)["policy/ratio_max"] == largest  # type: ignore[arg-type]


def test_the_norm_of_demonstrations_is_that_of_the_next_ones() -> None:
    """One answer token: a gradient of norm 0.5 * sqrt((6/7)^2 + 6/49); two have half of that at each of two places."""
    alone = EncodedSequence(np.asarray([2, 4, 6], np.int32), np.asarray([False, False, True]))
    shown = demonstrations(demonstration(2, 4, 6), alone, batch_size=1)
    one = 0.5 * math.sqrt((6 / 7) ** 2 + 6 / 49)
    expected = {1: one, 2: one / math.sqrt(2)}
    for consumed in (0, 1):
        _, _, roles = tables(3)
        shown.consumed = consumed
        norm = demonstration_norm(roles, shown, taught())
        assert norm == pytest.approx(expected[int(shown.take()[0].answer_mask.sum())], rel=1e-5)
