"""`rlhf score`: every answer of a data file scored by a reward model.

Rows are read, scored and written as a stream. Scores are kept in `<out>.partial`; an interrupted command
continues after them when it is started again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config.flag_values import BAD_ROW, SCORING_DTYPE, Dtype
from rlhf.config.flags import flag
from rlhf.curate.output import Output, progress
from rlhf.curate.partial import PartialFile
from rlhf.curate.sample.sources import weights_hash
from rlhf.data.embedded import data_path
from rlhf.data.packing import Tree
from rlhf.data.readers import NumberedRow, Row, locate, read_rows, sha256_of, usable
from rlhf.data.sources import OnBadRow, placed
from rlhf.errors import DataError
from rlhf.evaluate.score.answers import answers_of
from rlhf.models.packed_forward import MICRO_TOKENS
from rlhf.models.scoring import RewardScorer, load_scorer

BATCHES_KEPT = 8  # forward passes after which scores are stored


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """The reward model, the rows, and where they go."""

    model: str = flag(..., "run folder of stage 2, or its model/", metavar="RUN")
    source: str = flag(..., "rows of any format with answers, or demo:NAME", name="--in", metavar="FILE")
    out: Path = flag(..., "JSONL file to write: the rows, each with `rewards`", metavar="FILE")
    dtype: Dtype = flag("auto", SCORING_DTYPE)
    batch_tokens: int = flag(MICRO_TOKENS, "tokens in one forward pass, unless a single answer is longer", least=1)
    max_length: int | None = flag(
        None, "longest prompt and answer in tokens; what is longer is cut (default: that of training)", least=2
    )
    limit: int | None = flag(None, "only the first N rows", least=1)
    on_bad_row: OnBadRow = flag("error", BAD_ROW)


def run(options: ScoreOptions) -> int:
    """Scores the rows and writes `options.out` with its manifest.

    Raises: ModelError for a model that cannot be used; DataError for a bad row, or a file that cannot be read.
    """
    scorer = load_scorer(options.model, options.dtype, key="--model", max_length=options.max_length)
    sys.stderr.write(f"{_Scoring(options, scorer).finished()}\n")
    return 0


class _Scoring:
    """The rows that are scored already, and the rest."""

    def __init__(self, options: ScoreOptions, scorer: RewardScorer) -> None:
        self.options, self.scorer, self.path = options, scorer, data_path(options.source)
        dtype = str(next(scorer.model.parameters()).dtype).removeprefix("torch.")
        settings = {"sha256": weights_hash(scorer.folder), "dtype": dtype, "max_length": scorer.max_length}
        recorded = {"model": options.model, **settings, "limit": options.limit, "on_bad_row": options.on_bad_row}
        self.output = Output(options.out, command="score", inputs=[self.path], options=recorded)
        identity = {"in": sha256_of(locate(self.path)), **settings}
        self.partial = PartialFile(options.out, identity, ("row",))
        self.num_before = len(self.partial.places)

    def finished(self) -> str:
        """Scores what is left, writes the output and removes the partial file; returns a summary."""
        for batch in self._batches():
            scores = self.scorer.scores([tree for _, tree, _ in batch], self.options.batch_tokens)
            self.partial.add(
                {"row": number, "rewards": rewards, "cut": cut}
                for (number, _, cut), rewards in zip(batch, scores, strict=True)
            )
        with self.output:
            for number, (line, row) in enumerate(self._rows()):
                self._write(number, line, row)
        self.partial.remove()
        before = f"; {self.num_before} rows were scored before an interruption" if self.num_before else ""
        return f"{self.output.summary()}{before}"

    def _rows(self) -> Iterator[NumberedRow]:
        for number, row in enumerate(read_rows(locate(self.path))):
            if self.options.limit is not None and number >= self.options.limit:
                return
            yield row

    def _batches(self) -> Iterator[list[tuple[int, Tree, bool]]]:
        """(row number, prompt and answers, whether they were cut) of rows without scores, some forward passes at a
        time."""
        batch: list[tuple[int, Tree, bool]] = []
        tokens = 0
        for number, (line, row) in enumerate(progress(self._rows(), "scoring")):
            before = self._num_cut
            tree = None if (number,) in self.partial.places else self._tree(line, row)
            if tree is None:
                continue
            batch.append((number, tree, self._num_cut > before))
            tokens += len(tree[0]) + sum(map(len, tree[1]))
            if tokens >= BATCHES_KEPT * self.options.batch_tokens:
                yield batch
                batch, tokens = [], 0
        if batch:
            yield batch

    @property
    def _num_cut(self) -> int:
        report = self.scorer.report
        return report.rows_with_cut_prompt + report.rows_with_cut_answer + report.rows_with_dropped_turns

    def _tree(self, line: int, row: Row | DataError) -> Tree | None:
        """A row's prompt and answers as ids; None for a bad row that is skipped."""
        try:
            answers = answers_of(usable(row))
            return self.scorer.tree(answers.prompt, answers.texts, answers.finished)
        except DataError as error:
            if self.options.on_bad_row == "skip":
                return None
            fix = "correct the row, or skip bad rows with --on-bad-row skip"
            raise (error if isinstance(row, DataError) else placed(error, f"{self.path}:{line}", fix=fix)) from None

    def _write(self, number: int, line: int, row: Any) -> None:
        if (number,) not in self.partial.places:
            self.output.drop("bad row", f"{self.path}:{line}")
            return
        (entry,) = self.partial.read([(number,)])
        self.output.count_all({"answers": len(entry["rewards"]), "rows cut to the length of training": entry["cut"]})
        self.output.write({**row, "rewards": entry["rewards"]})
