"""Answers of several models to the same prompts with the same decoding settings, kept on disk and reused.

They are sampled by `rlhf.curate.sample.sampler`, which writes each answer at once and resumes after an interruption.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rlhf.artifacts.files import read_json
from rlhf.artifacts.run_folder import short_names
from rlhf.curate.output import manifest_path
from rlhf.curate.rude import contains_rude
from rlhf.curate.sample.options import SampleOptions
from rlhf.curate.sample.sampler import sample_answers
from rlhf.curate.sample.sources import model_folder, weights_hash
from rlhf.data.embedded import data_path
from rlhf.data.readers import locate, sha256_of
from rlhf.data.records import Prompt
from rlhf.data.sources import DataSource, read_records
from rlhf.engine.ranks import Ranks
from rlhf.errors import ConfigError
from rlhf.evaluate.answers.measures import is_mixed

EMPTY = "(빈 답변)"  # shown to a judge or a person in place of an answer without text


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """One model's answers [P][K] and whether each ended in EOS; `name` is short and unique among the models."""

    name: str
    path: str
    sha256: str
    answers: list[list[str]]
    finished: list[list[bool]]

    def tags(self, row: int) -> list[tuple[str, str]]:
        """What a reader should notice about the first answer to a prompt, each with its tone."""
        text = self.answers[row][0]
        tags = [("rude", "bad")] if contains_rude(text) else []
        tags += [("mixed register", "bad")] if is_mixed(text) else []
        return tags + ([] if self.finished[row][0] else [("cut at the limit", "")])

    def about(self) -> dict[str, str]:
        """The model, as reports hold it."""
        return {"name": self.name, "path": self.path, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Generations:
    """The prompts and every model's answers to them."""

    prompts: list[Prompt]
    sets: list[AnswerSet]
    decoding: dict[str, Any]
    num_skipped: int

    def about(self) -> dict[str, Any]:
        """Models, decoding settings and counts, as reports hold them."""
        return {
            "models": [each.about() for each in self.sets],
            "num_prompts": len(self.prompts),
            "answers_per_prompt": len(self.sets[0].answers[0]),
            "bad_rows_skipped": self.num_skipped,
            "decoding": self.decoding,
        }


def generate(request: SampleOptions, out: Path) -> Generations:
    """Samples answers into out/answers.jsonl, or reads that file if it has the same models, prompts and settings.

    Raises: ConfigError for a model named twice; DataError or ModelError for what cannot be read or loaded.
    """
    _check_models(request.models)
    folders = [model_folder(path) for path in request.models]
    hashes = [weights_hash(folder) for folder in folders]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    request = request.on(device.type)
    source = DataSource(data_path(request.prompts), limit=request.limit)
    read = read_records(source, Prompt, on_bad_row=request.on_bad_row)
    file = out / "answers.jsonl"
    if _is_there(file, request, hashes):
        sys.stderr.write(f"answers are read from {file}\n")
    else:
        sys.stderr.write(f"{sample_answers(replace(request, out=file), Ranks(0, 0, 1, device))}\n")
    sets = _read(file, request, hashes)
    return Generations(read.records, sets, request.decoding, read.report.num_skipped)


def _check_models(models: Sequence[str]) -> None:
    if not models:
        raise ConfigError("no model is named", where="--model", fix="--model runs/sft --model runs/ppo")
    if len({str(Path(path).resolve()) for path in models}) < len(models):
        raise ConfigError(f"the same model twice: {', '.join(models)}", fix="name each model once")


def _is_there(file: Path, request: SampleOptions, hashes: Sequence[str]) -> bool:
    """Whether the file holds exactly these answers, by its manifest; a hub id has no hash and is sampled again."""
    manifest = manifest_path(file)
    if not file.is_file() or not manifest.is_file() or not all(hashes):
        return False
    found = read_json(manifest)
    answerers = [
        {"model": path, "sha256": digest, "decoding": request.decoding}
        for path, digest in zip(request.models, hashes, strict=True)
    ]
    options = {"k": request.k, "limit": request.limit, "on_bad_row": request.on_bad_row}
    same_options = all(found["options"].get(name) == value for name, value in options.items())
    same_prompts = found["inputs"][0]["sha256"] == sha256_of(locate(data_path(request.prompts)))
    return same_options and same_prompts and found.get("answerers") == answerers


def _read(file: Path, request: SampleOptions, hashes: Sequence[str]) -> list[AnswerSet]:
    size = request.k
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    sets = []
    for number, (name, path) in enumerate(zip(short_names(request.models), request.models, strict=True)):
        mine = slice(number * size, (number + 1) * size)
        texts = [row["responses"][mine] for row in rows]
        finished = [[bool(answer["finished"]) for answer in row["answers"][mine]] for row in rows]
        sets.append(AnswerSet(name, path, hashes[number], texts, finished))
    return sets
