"""Draws K answers per prompt from one or more models, and has a reward model score them where that is asked.

The models answer all prompts one after another, so that one model at a time is in memory. Finished answers, and then
their scores, are appended to `<out>.partial`; when an interrupted run is started again, it continues from there.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from rlhf.curate.answer_rows import prompt_value
from rlhf.curate.endpoint.client import Endpoint
from rlhf.curate.output import Output, progress
from rlhf.curate.partial import PartialFile
from rlhf.curate.sample.options import SampleOptions
from rlhf.curate.sample.sources import Answer, LocalModel, endpoint_answers, local_model, model_folder, weights_hash
from rlhf.data.embedded import data_path
from rlhf.data.encode import EncodedPrompt
from rlhf.data.readers import locate, sha256_of
from rlhf.data.records import Prompt
from rlhf.data.sources import DataSource, SourceRecords, read_records
from rlhf.engine.ranks import Ranks
from rlhf.models.scoring import RewardScorer, load_scorer
from rlhf.rollout.capacity import CPU_SLOTS

SCORES = -1  # in place of an answerer's number, the scores of all answers to a prompt
PROMPTS_SCORED = 64  # after which scores are stored
FILLS = 8  # times that the slots are filled before answers are stored
Answered = tuple[int, list[Answer]]  # the number of a prompt and its answers


def sample_answers(options: SampleOptions, ranks: Ranks, endpoint: Endpoint | None = None) -> str:
    """Writes `options.out` and its manifest on rank 0; returns a summary, empty on other ranks.

    Every rank answers its share of the prompts; `endpoint` (on rank 0) answers after the models. An answer does not
    depend on the rank, the batch or the start in which it was drawn.

    Raises: DataError, ModelError, EngineError or EndpointError; earlier answers are kept for the next start.
    """
    options = options.on(ranks.device.type)
    read = read_records(
        DataSource(data_path(options.prompts), limit=options.limit), Prompt, on_bad_row=options.on_bad_row
    )
    folders = [model_folder(path) for path in options.models]
    judge = options.score and model_folder(options.score, key="--score")
    collectors: list[_Collector] = []

    def prepare() -> set[Hashable]:
        collectors.append(_Collector(options, read, _answerers(options, folders, endpoint), judge))
        return set(collectors[0].partial.places)

    done = ranks.on_main(prepare)
    for number, folder in enumerate(folders):
        todo = [row for row in range(len(read.records)) if (row, number) not in done]
        if todo:
            with local_model(folder, number, options, ranks) as model:
                encoded, cuts = model.encoded(read.records)
                batches = _batches(model, encoded, todo, options, ranks)
                for collector in collectors:
                    collector.keep(batches, number, len(todo))
                    collector.output.count_all(cuts)
                deque(batches, maxlen=0)  # on the other ranks, which draw their share too
            del model, batches
            _free_memory()
    return collectors[0].finished(endpoint) if collectors else ""


class _Collector:
    """Stores the answers on rank 0, and writes the output from them."""

    def __init__(
        self, options: SampleOptions, read: SourceRecords[Prompt], answerers: list[dict[str, Any]], judge: str
    ) -> None:
        self.options, self.read, self.answerers, self.judge = options, read, answerers, judge
        path = data_path(options.prompts)
        settings = {"k": options.k, "seed": options.seed, "answerers": answerers}
        if judge:
            settings["score"] = {"model": options.score, "sha256": weights_hash(judge)}
        recorded = {**settings, "limit": options.limit, "on_bad_row": options.on_bad_row, "keep": options.keep}
        self.output = Output(options.out, command="data sample", inputs=[path], options=recorded)
        identity = {"prompts": sha256_of(locate(path)), **settings}
        self.partial = PartialFile(options.out, identity, ("row", "answerer"))
        num_scored = sum((row, SCORES) in self.partial.places for row in range(len(read.records)))
        self.num_before = (len(self.partial.places) - num_scored) * options.k
        self.num_drawn, self.num_tokens, self.seconds = 0, 0, 0.0

    def keep(self, batches: Iterable[Sequence[Answered]], number: int, total: int) -> None:
        """Stores the answers as they come, and shows the progress."""
        started = time.monotonic()
        for _, answers in progress(self._kept(batches, number), self.answerers[number]["model"], total):
            self.num_drawn += len(answers)
        self.seconds += time.monotonic() - started

    def _kept(self, batches: Iterable[Sequence[Answered]], number: int) -> Iterator[Answered]:
        for batch in batches:
            self.partial.add({"row": row, "answerer": number, "answers": answers} for row, answers in batch)
            yield from batch

    def finished(self, endpoint: Endpoint | None) -> str:
        """Requests the missing answers of the endpoint, scores those without a score where scores are asked for, writes
        the output and removes the partial file."""
        if endpoint is not None:
            number = len(self.answerers) - 1
            rows = list(enumerate(self.read.records))
            todo = [(row, prompt) for row, prompt in rows if (row, number) not in self.partial.places]
            answered = endpoint_answers(endpoint, todo, self.options)
            self.keep(([each] for each in answered), number, len(todo))
        if self.judge:
            self._score()
        for index in range(self.read.report.num_skipped):
            self.output.drop("bad row", "".join(self.read.report.skipped[index : index + 1]))
        with self.output:
            for row, prompt in enumerate(self.read.records):
                self._write(prompt, self._answers(row), self._scores(row))
            tokens = {"tokens": self.num_tokens, "seconds": round(self.seconds, 3)}
            self.output.extra = {"answerers": self.answerers, **tokens}
        self.partial.remove()
        speed = f", {self.num_drawn / self.seconds:.1f} answers/s" if self.num_drawn else ""
        before = f"; {self.num_before} were kept from an interrupted run" if self.num_before else ""
        return f"{self.output.summary()}; {self.num_drawn} drawn in {self.seconds:.1f} s{speed}{before}"

    def _answers(self, row: int) -> list[list[Answer]]:
        """The answers to a prompt, by model."""
        found = self.partial.read([(row, number) for number in range(len(self.answerers))])
        return [entry["answers"] for entry in found]

    def _scores(self, row: int) -> list[float] | None:
        """The scores of the answers to a prompt, those of all models in a list; None where none were asked for."""
        if not self.judge:
            return None
        (entry,) = self.partial.read([(row, SCORES)])
        found: list[float] = entry["scores"]
        return found

    def _score(self) -> None:
        """Stores the scores of prompts that have none yet."""
        todo = [row for row in range(len(self.read.records)) if (row, SCORES) not in self.partial.places]
        if not todo:
            return
        scorer = load_scorer(self.judge, key="--score")
        batches = [todo[start : start + PROMPTS_SCORED] for start in range(0, len(todo), PROMPTS_SCORED)]
        for batch in progress(batches, "scoring"):
            said = [
                [(answer["text"], answer["finished"]) for each in self._answers(row) for answer in each]
                for row in batch
            ]
            scores = _scores_of(scorer, [self.read.records[row] for row in batch], said)
            self.partial.add(
                {"row": row, "answerer": SCORES, "scores": found} for row, found in zip(batch, scores, strict=True)
            )

    def _write(self, prompt: Prompt, by_answerer: Sequence[list[Answer]], scores: list[float] | None) -> None:
        about = [
            {**answerer, **{name: value for name, value in answer.items() if name != "text"}}
            for answerer, answers in zip(self.answerers, by_answerer, strict=True)
            for answer in answers
        ]
        texts = [answer["text"] for answers in by_answerer for answer in answers]
        self.num_tokens += sum(answer["tokens"] or 0 for answer in about)
        self.output.count_all(
            {
                "answers": len(texts),
                "identical answers": len(texts) - len(set(texts)),
                "empty answers": sum(not text for text in texts),
                "answers cut at the limit": sum(not answer["finished"] for answer in about),
                "refusals": sum(answer.get("refused", False) for answer in about),
            }
        )
        row = {"prompt": prompt_value(prompt.messages), "responses": texts}
        models = [answer["model"] for answer in about]
        if scores is None or self.options.keep == "all":
            rated = {} if scores is None else {"scores": scores}
            self.output.write({**row, **rated, "models": models, "answers": about, "source": prompt.source})
            return
        usable = [bool(text) and answer["finished"] for text, answer in zip(texts, about, strict=True)]
        best = best_answer(scores, usable)
        if best is None:
            self.output.drop("no finished answer", prompt.messages[-1].content)
            return
        self.output.count("prompts with tied best answers", best.num_tied > 0)
        kept = {"prompt": row["prompt"], "response": texts[best.place], "model": models[best.place]}
        self.output.write({**kept, "rewards": scores, "num_tied": best.num_tied, "source": prompt.source})


def _scores_of(
    scorer: RewardScorer, prompts: Sequence[Prompt], said: Sequence[Sequence[tuple[str, bool]]]
) -> list[list[float]]:
    """The scores of (text, whether it finished) of the answers to each prompt.

    An answer and its double are scored once: at another place in a packed row a score differs in its last bits, by
    more in half precision, and doubles would not be tied.
    """
    distinct = [list(dict.fromkeys(answers)) for answers in said]
    trees = [
        scorer.tree(prompt.messages, [text for text, _ in answers], [finished for _, finished in answers])
        for prompt, answers in zip(prompts, distinct, strict=True)
    ]
    known = [dict(zip(*each, strict=True)) for each in zip(distinct, scorer.scores(trees), strict=True)]
    return [[scores[answer] for answer in answers] for scores, answers in zip(known, said, strict=True)]


class BestAnswer(NamedTuple):
    """The place of the kept answer among all, and how many others have the same score."""

    place: int
    num_tied: int


def best_answer(scores: Sequence[float], usable: Sequence[bool]) -> BestAnswer | None:
    """The first usable answer with the highest score among these; None where none is usable.

    An answer that was cut at the limit is not usable: a demonstration of it would teach to stop there.
    """
    among = [index for index, each in enumerate(usable) if each]
    if not among:
        return None
    top = max(scores[index] for index in among)
    tied = [index for index in among if scores[index] == top]
    return BestAnswer(tied[0], len(tied) - 1)


def _answerers(options: SampleOptions, folders: Sequence[str], endpoint: Endpoint | None) -> list[dict[str, Any]]:
    """What is written beside each answer: the model, its hash and its decoding settings."""
    sampling = options.sampling
    described: list[dict[str, Any]] = [
        {"model": path, "sha256": weights_hash(folder), "decoding": options.decoding}
        for path, folder in zip(options.models, folders, strict=True)
    ]
    if endpoint is not None:
        asked = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}
        described.append({"model": endpoint.model, "endpoint": endpoint.url, "decoding": asked})
    return described


def _batches(
    model: LocalModel, encoded: Sequence[EncodedPrompt], todo: Sequence[int], options: SampleOptions, ranks: Ranks
) -> Iterator[list[Answered]]:
    """Answers to the prompts `todo` in order, a few thousand at a time, divided among the ranks."""
    size = ranks.world_size * max(1, FILLS * (options.sampling.batch_size or CPU_SLOTS) // options.k)
    for start in range(0, len(todo), size):
        rows = todo[start : start + size]
        mine = rows[ranks.rank :: ranks.world_size]
        drawn = model.draw([encoded[row] for row in mine])
        found = dict(pair for part in ranks.gather(list(zip(mine, drawn, strict=True))) for pair in part)
        yield [(row, found[row]) for row in rows]


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
