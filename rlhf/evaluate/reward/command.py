"""`rlhf evaluate reward`: the report card of a finished reward model on test rankings, as JSON and as a page."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import Progress

from rlhf.artifacts.manifest import manifest_of
from rlhf.config.flag_values import Dtype
from rlhf.data.embedded import data_path
from rlhf.data.records import Ranking
from rlhf.data.sources import DataSource, read_records
from rlhf.data.tokenizer import load_tokenizer
from rlhf.errors import DataError
from rlhf.evaluate.packed_forward import MICRO_TOKENS
from rlhf.evaluate.report_folder import report_folder, write_report
from rlhf.evaluate.reward.card import build_reward_card
from rlhf.evaluate.reward.card_plots import page_values
from rlhf.evaluate.reward.leakage import training_rankings
from rlhf.evaluate.reward.scoring import scoring_model, trained_length, tree_scores
from rlhf.evaluate.reward.test_set import build_test_set, score_test_set
from rlhf.html.plots import require_matplotlib
from rlhf.models.loading import artifact_model_path, check_model_path


def evaluate_reward(
    model: str,
    data: Sequence[str],
    out: str,
    *,
    limit: int | None,
    on_bad_row: Literal["error", "skip"],
    dtype: Dtype = "auto",
) -> dict[str, Any]:
    """Writes out/report_card.json and out/report_card.html, prints a summary, and returns the card.

    Args:
        model: run folder of stage 2, or its model/.
        data: files of rankings or pairs.
        out: folder to write.
        limit: use only the first rows of each file.
        dtype: of the weights; auto is that of the folder on a GPU, float32 on a CPU.

    Raises: ConfigError without matplotlib, before anything is scored; ModelError or DataError for what cannot be
        read, and for files in which all answers of every ranking are equal.
    """
    require_matplotlib()
    path = artifact_model_path(model)
    check_model_path(path, key="--model")
    rankings = [
        record
        for file in data
        for record in read_records(
            DataSource(data_path(file), limit=limit, name=Path(file).stem), Ranking, on_bad_row=on_bad_row
        ).records
    ]
    test_set = build_test_set(rankings, load_tokenizer(path), trained_length(path))
    if not test_set.rankings:
        raise DataError(
            f"in none of {len(rankings)} rankings do answers differ after tokenisation",
            where=", ".join(data),
            fix="check the file, or the model's tokenizer",
        )
    folder = Path(out)
    report_folder(folder)
    reward, manifest = scoring_model(path, dtype), manifest_of(path)
    with _bar("scoring", len(test_set.trees)) as advance:
        scores = score_test_set(test_set, partial(tree_scores, reward, advance=advance), max_tokens=MICRO_TOKENS)
    sys.stderr.write("shortcut baselines and leakage ...\n")
    card = build_reward_card(test_set, scores, training=training_rankings(manifest), manifest=manifest)
    card |= {"model": path, "data": list(data)}
    write_report(folder, "report_card", card, "reward", **page_values(card))
    return card


@contextmanager
def _bar(title: str, total: int) -> Iterator[Any]:
    """A progress bar on stderr; yields the function that advances it."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
