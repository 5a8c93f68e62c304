"""Stage 2: a reward model on ranked answers, pairwise loss over all untied pairs of a prompt (InstructGPT eq. 1)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.artifacts.files import read_json
from rlhf.config.schema import RewardConfig
from rlhf.data.encode import EncodedRanking, Encoder
from rlhf.data.packing import PackedRow, pack_trees, plan_micro_batches, trees_of
from rlhf.data.records import Demonstration, Ranking
from rlhf.data.tokenizer import ChatTokenizer, load_tokenizer
from rlhf.engine.deepspeed import TrainedModel
from rlhf.evaluate.preference import Judged, report_card
from rlhf.models.loading import artifact_model_path, check_model_path
from rlhf.ops.losses import RankingLoss, ranking_loss
from rlhf.train.controllers import Schedule, schedule_of
from rlhf.train.inputs import Loaded, encode_summary, fresh_report, load
from rlhf.train.lifecycle import export, is_due, load_best, metrics_log, require_finite, restore, save, write_manifest
from rlhf.train.models import build_scalar_model, make_trainable
from rlhf.train.run import Run

SHOWN = ("loss", "accuracy", "eval_accuracy", "margin", "lr", "grad_norm")
MAX_DEMONSTRATIONS = 512
Tree = tuple[Any, Sequence[Any]]


@dataclass(slots=True)
class Progress:
    """Everything a resumed run needs beside weights and optimizer."""

    consumed: int = 0
    best_accuracy: float = -1.0
    best_step: int = 0


def train_reward(run: Run[RewardConfig]) -> None:
    """The whole stage: data, model, steps, evaluation, zero point, export and report card."""
    config, ranks = run.config, run.ranks
    path = artifact_model_path(config.model.path)
    check_model_path(path, key="model.path")
    tokenizer = load_tokenizer(path, config.data.template)
    train, held_out = _load_data(run, tokenizer)
    if config.train.epochs > 1:
        run.say("warning: a reward model trained for more than one epoch overfits its pairs (arXiv:2203.02155 C.2)")
    stream = train.stream(seed=config.run.seed, batch_size=config.train.batch_size, epochs=config.train.epochs)
    schedule, last = schedule_of(config.train, stream.num_steps), run.last_step(stream.num_steps)

    head_seed = None if _is_scalar_folder(path) else config.run.seed
    wrapped = build_scalar_model(
        path, config.model, config.deepspeed, ranks, tokenizer, key="model.path", new_head_seed=head_seed
    )
    make_trainable(wrapped, config.model, run.say)
    trained = TrainedModel(wrapped, config.train, config.deepspeed, ranks, dtype=config.model.dtype)
    roles = {"model": trained}
    progress = restore(run, roles, Progress())
    write_manifest(run, tokenizer, {"base": path}, {"train": train.reports, "eval": held_out.reports})

    with metrics_log(run, last, SHOWN) as log:
        trained.train()
        while run.step < last:
            step, started = run.step + 1, time.perf_counter()
            rows = stream.batch(progress.consumed)
            metrics = reward_step(trained, [train.items[row] for row in rows], config, schedule, step)
            metrics |= {"step_s": (elapsed := time.perf_counter() - started), "rankings_per_s": len(rows) / elapsed}
            progress.consumed += len(rows)
            run.step = step
            improved = False
            if held_out.items and is_due(step, config.eval.every_steps or stream.steps_per_epoch, last):
                card = judge(trained, held_out.items, config)
                metrics["eval_accuracy"] = card["accuracy"]
                improved = card["accuracy"] > progress.best_accuracy
                if improved:
                    progress.best_accuracy, progress.best_step = card["accuracy"], step
            log.log(step, metrics)
            if improved or is_due(step, config.checkpoint.every_steps, last):
                save(run, roles, progress, best=improved)
    _finish(run, trained, tokenizer, train.items, held_out.items, path)


def reward_step(
    trained: TrainedModel, batch: Sequence[EncodedRanking], config: RewardConfig, schedule: Schedule, step: int
) -> dict[str, float]:
    """One optimizer step on a global batch of rankings; every rank is given all of it and runs its share."""
    ranks = trained.ranks
    # 1. micro-batches of whole prompts, planned alike on every rank
    plan = plan_micro_batches([len(item) for item in batch], config.train.micro_tokens, ranks.world_size)
    # 2. forward and backward; the denominator is the global number of prompts
    sums = torch.zeros(4, dtype=torch.float64)
    for items in plan[ranks.rank]:
        rankings = [batch[item] for item in items]
        loss = _row_loss(trained, pack_trees(trees_of(rankings)), rankings, len(batch), config)
        trained.backward(loss.loss)
        sums += torch.stack([loss.loss.detach(), loss.num_correct, loss.num_pairs, loss.margin_sum]).double().cpu()
    # 3. a loss that is not finite stops before the weights change
    mean, correct, pairs, margin = ranks.global_sum(*sums)
    require_finite(mean, step)
    # 4. update
    lr = config.train.lr * schedule.factor(step)
    outcome = trained.step(lr)
    return {
        "loss": mean,
        "accuracy": correct / max(pairs, 1),
        "margin": margin / max(pairs, 1),
        "lr": lr,
        "grad_norm": outcome.grad_norm,
        "tokens": sum(len(item) for item in batch),
    }


def _row_loss(
    trained: TrainedModel, row: PackedRow, rankings: Sequence[EncodedRanking], total: int, config: RewardConfig
) -> RankingLoss:
    """The loss of one row's prompts, their K answers padded to the largest K."""
    flat = trained.forward(row)
    scores, ranks, mask = ranking_table(flat, rankings)
    return ranking_loss(
        scores,
        ranks,
        mask,
        torch.tensor(float(total), device=flat.device),
        label_smoothing=config.train.label_smoothing,
        centering=config.train.centering,
    )


def ranking_table(flat: Tensor, rankings: Sequence[EncodedRanking]) -> tuple[Tensor, Tensor, Tensor]:
    """Scores read one after another as a table: scores, ranks and mask, each [B, K].

    An idle row becomes one prompt of one masked answer, so that it has a graph and no loss.
    """
    sizes = [len(item.answers) for item in rankings] or [1]
    width = max(sizes)
    column = torch.arange(width, device=flat.device)
    filled = column[None, :] < torch.tensor(sizes, device=flat.device)[:, None]
    scores = flat.new_zeros(filled.shape).masked_scatter(filled, flat)
    ranks = torch.zeros(filled.shape, dtype=torch.int64)
    for number, item in enumerate(rankings):
        ranks[number, : len(item.ranks)] = torch.tensor(item.ranks)
    return scores, ranks.to(flat.device), filled if rankings else torch.zeros_like(filled)


def score_trees(trained: TrainedModel, trees: Sequence[Tree], micro_tokens: int) -> list[list[float]]:
    """Scores of each tree's answers, in order, on every rank."""
    lengths = [len(prompt) + sum(map(len, answers)) for prompt, answers in trees]
    plan = plan_micro_batches(lengths, micro_tokens, trained.ranks.world_size)
    found: dict[int, list[float]] = {}
    for items in plan[trained.ranks.rank]:
        flat = trained.infer(pack_trees([trees[item] for item in items])).tolist()
        for item in items:
            found[item], flat = flat[: len(trees[item][1])], flat[len(trees[item][1]) :]
    everywhere = {item: scores for part in trained.ranks.gather(found) for item, scores in part.items()}
    return [everywhere[item] for item in range(len(trees))]


def judge(trained: TrainedModel, rankings: Sequence[EncodedRanking], config: RewardConfig) -> dict[str, Any]:
    """The report card on held-out rankings."""
    scores = score_trees(trained, trees_of(rankings), config.train.micro_tokens)
    rows = [Judged(item.ranks, tuple(each), item.source) for item, each in zip(rankings, scores, strict=True)]
    return report_card(rows, [[len(answer) for answer in item.answers] for item in rankings])


def _finish(
    run: Run[RewardConfig],
    trained: TrainedModel,
    tokenizer: ChatTokenizer,
    train: Sequence[EncodedRanking],
    held_out: Sequence[EncodedRanking],
    path: str,
) -> None:
    """The best checkpoint, its mean score on demonstrations moved to 0, exported with its report card."""
    load_best(run, trained)
    trees = _demonstrations(run, tokenizer, train)
    mean = float(np.mean(score_trees(trained, trees, run.config.train.micro_tokens)))
    card: dict[str, Any] = judge(trained, held_out, run.config) if held_out else {"num_rankings": 0}
    card["mean_before_shift"] = mean
    probe = pack_trees(trees_of(train[:1]))
    files = {"report_card.json": card}
    export(run, trained, tokenizer, probe, base_path=path, score_offset=-mean, files=files)
    if held_out:
        run.say(
            f"held-out accuracy {card['accuracy']:.3f} [{card['low']:.3f}, {card['high']:.3f}], neighbouring ranks "
            f"{card['neighbours']['accuracy']:.3f}, the longer answer {card['longer_answer']['accuracy']:.3f}"
        )


def _demonstrations(run: Run[RewardConfig], tokenizer: ChatTokenizer, train: Sequence[EncodedRanking]) -> list[Tree]:
    """Prompts with one good answer each: what is to score 0 on average."""
    data = run.config.data
    if not data.demonstrations:
        best: list[Tree] = [(item.prompt, [item.answers[item.ranks.index(min(item.ranks))]]) for item in train]
        return best[:MAX_DEMONSTRATIONS]
    encoder = Encoder(tokenizer, data.max_length)
    loaded = load(data, data.demonstrations, Demonstration, encoder.demonstrations, key="data.demonstrations")
    return [(item.ids[:1], [item.ids[1:]]) for item in loaded.items[:MAX_DEMONSTRATIONS]]


def _load_data(
    run: Run[RewardConfig], tokenizer: ChatTokenizer
) -> tuple[Loaded[EncodedRanking], Loaded[EncodedRanking]]:
    data, seed = run.config.data, run.config.run.seed
    encoder = Encoder(tokenizer, data.max_length)
    train = load(data, data.train, Ranking, encoder.rankings, key="data.train")
    kept, notes = usable(train, data.max_answers, seed)
    run.say(f"train: {encode_summary(encoder)}{notes}")
    if not data.eval:
        run.say("no data.eval: no held-out accuracy, and the report card is empty")
        return kept, Loaded([], (), (), [])
    encoder = fresh_report(encoder)
    held_out = load(data, data.eval, Ranking, encoder.rankings, key="data.eval", limit=run.config.eval.max_rows)
    kept_out, notes = usable(held_out, data.max_answers, seed)
    run.say(f"eval:  {encode_summary(encoder)}{notes}")
    return kept, kept_out


def usable(loaded: Loaded[EncodedRanking], max_answers: int, seed: int) -> tuple[Loaded[EncodedRanking], str]:
    """Rows with at least one pair to learn: answers alike after tokenisation once, at most `max_answers` of them."""
    items: list[EncodedRanking] = []
    sizes, alike, sampled, dropped, first = [], 0, 0, 0, 0
    for size in loaded.sizes:
        before = len(items)
        for row in range(first, first + size):
            item = distinct_answers(loaded.items[row])
            alike += len(loaded.items[row].answers) - len(item.answers)
            if len(item.answers) > max_answers:
                item, sampled = sample_answers(item, max_answers, (seed, row)), sampled + 1
            if len(set(item.ranks)) > 1:
                items.append(item)
            else:
                dropped += 1
        sizes.append(len(items) - before)
        first += size
    counts = {"answers alike": alike, f"rows cut to {max_answers} answers": sampled, "rows without a pair": dropped}
    notes = "".join(f"; {count} {name}" for name, count in counts.items() if count)
    return replace(loaded, items=items, sizes=tuple(sizes)), notes


def distinct_answers(item: EncodedRanking) -> EncodedRanking:
    """The ranking without answers whose tokens another one has: their pair would cost log 2 for ever.

    Of two alike with different ranks neither is right, and the better-ranked stands.
    """
    keep: dict[bytes, int] = {}
    for answer in sorted(range(len(item.answers)), key=lambda answer: item.ranks[answer]):
        keep.setdefault(item.answers[answer].tobytes(), answer)
    return _subset(item, sorted(keep.values()))


def sample_answers(item: EncodedRanking, count: int, stream: tuple[int, ...]) -> EncodedRanking:
    """`count` answers drawn from a named stream, at least two of them of different rank."""
    generator = np.random.default_rng(stream)
    order = generator.permutation(len(item.answers)).tolist()
    other = next((answer for answer in order if item.ranks[answer] != item.ranks[order[0]]), order[0])
    chosen = [order[0], other, *(answer for answer in order[1:] if answer != other)]
    return _subset(item, sorted(chosen[:count]))


def _subset(item: EncodedRanking, keep: Sequence[int]) -> EncodedRanking:
    scores = None if item.scores is None else tuple(item.scores[answer] for answer in keep)
    return replace(
        item,
        answers=tuple(item.answers[answer] for answer in keep),
        ranks=tuple(item.ranks[answer] for answer in keep),
        scores=scores,
    )


def _is_scalar_folder(path: str) -> bool:
    """Whether the folder holds a classifier already, whose head is to be kept."""
    config = Path(path) / "config.json"
    names = read_json(config).get("architectures") or [] if config.is_file() else []
    return any("SequenceClassification" in name for name in names)
