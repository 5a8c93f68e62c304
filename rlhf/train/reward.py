"""Stage 2: a reward model on ranked answers, pairwise loss over all untied pairs of a prompt (InstructGPT eq. 1)."""

from __future__ import annotations

import operator
import time
from collections.abc import Sequence
from typing import Any

import torch

from rlhf.artifacts.files import read_json
from rlhf.config.schema import RewardConfig
from rlhf.data.encode import EncodedRanking, Encoder
from rlhf.data.packing import Tree, pack_trees, plan_micro_batches, trees_of
from rlhf.data.records import Demonstration
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.engine.deepspeed import TrainedModel
from rlhf.evaluate.reward.accuracy import ScoredRanking, report_card
from rlhf.evaluate.reward.card import build_reward_card
from rlhf.evaluate.reward.test_set import build_test_set, score_test_set
from rlhf.html.templates import render
from rlhf.ops.losses import RankingLoss, ranking_loss
from rlhf.ops.zero_point import ZeroPoint
from rlhf.train.first_loss import first_loss_line, loss_of_equal_scores
from rlhf.train.inputs import encode_summary, load
from rlhf.train.margins import demonstration_zero, rows_without_scores
from rlhf.train.models import build_scalar_model, is_scalar_folder, make_trainable, starting_points
from rlhf.train.opening import opened_model
from rlhf.train.ranking_rows import pack_rankings, score_table
from rlhf.train.rankings import Records, load_rankings
from rlhf.train.run.fast_paths import start_fast_paths
from rlhf.train.run.lifecycle import (
    end_if_asked,
    export,
    is_due,
    load_best,
    metrics_log,
    require_exportable,
    require_finite,
    restore,
    save,
    track_report,
    write_manifest,
)
from rlhf.train.run.progress import EvaluatedProgress
from rlhf.train.run.run import Run
from rlhf.train.run.sharing import read_shared
from rlhf.train.schedules import Schedule, schedule_of

PROGRESS_METRICS = ("loss", "reward_model/accuracy", "eval/accuracy", "reward_model/margin", "lr", "grad_norm")
WITHOUT_EVAL = "no data.eval: no held-out accuracy, and the report card is empty"
MAX_DEMONSTRATIONS = 512


def train_reward(run: Run[RewardConfig]) -> None:
    """The whole stage: data, model, steps, evaluation, zero point, export and report card."""
    config, ranks = run.config, run.ranks
    path, tokenizer = opened_model(run)
    train, held_out, records = load_rankings(run, tokenizer, without_eval=WITHOUT_EVAL)
    demonstrations, reports = _demonstrations(run, tokenizer, train.items)
    if config.train.margin == "scores" and (missing := rows_without_scores(train.items)):
        run.say(f"train.margin: {missing} of {len(train.items)} training rankings have no scores; their margins are 0")
    if config.train.epochs > 1:
        run.say("warning: a reward model trained for more than one epoch overfits its pairs (arXiv:2203.02155 C.2)")
    stream = train.stream(seed=config.run.seed, batch_size=config.train.batch_size, epochs=config.train.epochs)
    schedule, last = schedule_of(config.train, stream.num_steps), run.last_step(stream.num_steps)

    start_fast_paths(run, {"model": path})
    head_seed = None if is_scalar_folder(path) else config.run.seed
    wrapped = build_scalar_model(
        path, config.model, config.deepspeed, ranks, tokenizer, key="model.path", new_head_seed=head_seed
    )
    make_trainable(wrapped, config.model, run.say)
    trained = TrainedModel(wrapped, config.train, config.deepspeed, ranks, dtype=config.model.dtype)
    require_exportable(run, trained)
    roles = {"model": trained}
    data = {"train": train.reports, "eval": held_out.reports, "demonstrations": reports}
    write_manifest(run, tokenizer, starting_points(config.model, path), data)
    progress = restore(run, roles, EvaluatedProgress())

    with metrics_log(run, last, PROGRESS_METRICS) as log:
        trained.train()
        while run.step < last and progress.has_patience(config.eval.patience):
            step, started = run.step + 1, time.perf_counter()
            rows = stream.batch(progress.consumed)
            batch = [train.items[row] for row in rows]
            metrics = reward_step(trained, batch, config, schedule, step)
            if step == 1 and head_seed is not None:
                log.say(first_loss_line(metrics["loss"], loss_of_equal_scores(batch, config)))
            metrics |= {"time/step_s": (elapsed := time.perf_counter() - started)}
            metrics["time/rankings_per_s"] = len(rows) / elapsed
            progress.consumed += len(rows)
            run.step, improved = step, False
            if held_out.items and is_due(step, config.eval.every_steps or stream.steps_per_epoch, last):
                metrics["eval/accuracy"] = held_out_accuracy(trained, held_out.items, config)["accuracy"]
                improved = progress.record(metrics["eval/accuracy"], step, operator.gt)
            patient = progress.has_patience(config.eval.patience)
            log.log(step, metrics)
            if improved or is_due(step, config.checkpoint.every_steps, last if patient else step):
                save(run, roles, progress, best=improved)
            end_if_asked(run, roles, progress)
            if not patient:
                log.say(f"stopped early: {config.eval.patience} evaluations without a better accuracy")
    _finish(run, trained, tokenizer, demonstrations, records, path)


def reward_step(
    trained: TrainedModel, batch: Sequence[EncodedRanking], config: RewardConfig, schedule: Schedule, step: int
) -> dict[str, float]:
    """One optimizer step on a global batch of rankings; every rank is given all of it and runs its share."""
    ranks = trained.ranks
    # 1. micro-batches of whole prompts; every rank computes the same plan
    plan = plan_micro_batches([len(item) for item in batch], config.train.micro_tokens, ranks.world_size)
    # 2. forward and backward; the denominator is the global number of prompts
    sums = torch.zeros(4, dtype=torch.float64, device=ranks.device)
    for items in plan[ranks.rank]:
        loss = _row_loss(trained, [batch[item] for item in items], len(batch), config)
        trained.backward(loss.loss)
        sums += torch.stack([loss.loss.detach(), loss.num_correct, loss.num_pairs, loss.margin_sum]).double()
    # 3. stop before the weights change if the loss is not finite
    mean, correct, pairs, margin = ranks.global_sum(*sums)
    require_finite(mean, step)
    # 4. update
    lr = config.train.lr * schedule.factor(step)
    outcome = trained.step(lr)
    return {
        "loss": mean,
        "reward_model/accuracy": correct / max(pairs, 1),
        "reward_model/margin": margin / max(pairs, 1),
        "lr": lr,
        "grad_norm": outcome.grad_norm,
        "tokens": sum(len(item) for item in batch),
        "batch/num_rankings": len(batch),
    }


def _row_loss(
    trained: TrainedModel, rankings: Sequence[EncodedRanking], total: int, config: RewardConfig
) -> RankingLoss:
    """The loss of one row's prompts, their K answers padded to the largest K."""
    train = config.train
    scale = train.margin_scale if train.margin == "scores" else None
    row = pack_rankings(rankings, margin_scale=scale).to(trained.ranks.device)
    return ranking_loss(
        score_table(trained.forward(row), row),
        row.carried["ranks"],
        row.carried["mask"],
        torch.full((), float(total), device=trained.ranks.device),
        margins=row.carried.get("margins"),
        label_smoothing=train.label_smoothing,
        centering=train.centering,
    )


def score_trees(trained: TrainedModel, trees: Sequence[Tree], micro_tokens: int) -> list[list[float]]:
    """Scores of each tree's answers, in order, on every rank."""
    lengths = [len(prompt) + sum(map(len, answers)) for prompt, answers in trees]

    def read(items: list[int]) -> list[list[float]]:
        flat = iter(trained.infer(pack_trees([trees[item] for item in items])).tolist())
        return [[next(flat) for _ in trees[item][1]] for item in items]

    return read_shared(lengths, micro_tokens, trained.ranks, read)


def held_out_accuracy(
    trained: TrainedModel, rankings: Sequence[EncodedRanking], config: RewardConfig
) -> dict[str, Any]:
    """Accuracy on held-out rankings: the cheap part of the report card."""
    scores = score_trees(trained, trees_of(rankings), config.train.micro_tokens)
    rows = [ScoredRanking(item.ranks, tuple(each), item.source) for item, each in zip(rankings, scores, strict=True)]
    return report_card(rows, [[len(answer) for answer in item.answers] for item in rankings])


def _finish(
    run: Run[RewardConfig],
    trained: TrainedModel,
    tokenizer: ChatTokenizer,
    demonstrations: Sequence[Tree],
    records: Records,
    path: str,
) -> None:
    """Exports the best checkpoint with its report card, its zero point set on demonstrations."""
    load_best(run, trained)
    scores = [score for (score,) in score_trees(trained, demonstrations, run.config.train.micro_tokens)]
    zero = demonstration_zero(scores, run.config.train.normalise)
    moments = {"mean_before_shift": zero.mean, "deviation_before_scale": zero.deviation}
    card = {**_card(run, trained, tokenizer, records, zero), **moments}
    probe = pack_trees(demonstrations[:1])
    files = {"report_card.json": card}
    export(
        run, trained, tokenizer, probe, base_path=path, score_scale=zero.scale, score_offset=zero.offset, files=files
    )
    if card["num_rankings"]:
        track_report(run, "report_card", card)
        run.say(render("evaluate/reward/summary.txt.j2", report=card).rstrip())


def _card(
    run: Run[RewardConfig], trained: TrainedModel, tokenizer: ChatTokenizer, records: Records, zero: ZeroPoint
) -> dict[str, Any]:
    """The report card in the units of the exported model; all ranks score, and rank 0 does the rest."""
    config = run.config
    if not records.held_out:
        return {"num_rankings": 0}
    run.say("report card: held-out rankings, probes and shortcut baselines ...")
    test_set = build_test_set(records.held_out, tokenizer, config.data.max_length)

    def exported_scores(trees: Sequence[Tree]) -> list[list[float]]:
        found = score_trees(trained, trees, config.train.micro_tokens)
        return [[zero.shifted(score) for score in each] for each in found]

    scores = score_test_set(test_set, exported_scores, max_tokens=config.train.micro_tokens)

    def fill_in() -> dict[str, Any]:
        manifest = read_json(run.folder.path / "manifest.json")
        return build_reward_card(test_set, scores, training=records.train, manifest=manifest)

    card: dict[str, Any] = run.on_main(fill_in)
    return card


def _demonstrations(
    run: Run[RewardConfig], tokenizer: ChatTokenizer, train: Sequence[EncodedRanking]
) -> tuple[list[Tree], list[dict[str, Any]]]:
    """Prompts with one good answer each, whose mean score becomes 0, and the reports of the files they are from."""
    data = run.config.data
    if not data.demonstrations:
        best: list[Tree] = [(item.prompt, [item.answers[item.ranks.index(min(item.ranks))]]) for item in train]
        return best[:MAX_DEMONSTRATIONS], []
    encoder = Encoder(tokenizer, data.max_length)
    loaded = load(data, data.demonstrations, Demonstration, encoder.demonstrations, key="data.demonstrations")
    run.say(f"demonstrations: {encode_summary(encoder)}{loaded.notes}")
    return [(item.ids[:1], [item.ids[1:]]) for item in loaded.items[:MAX_DEMONSTRATIONS]], loaded.reports
