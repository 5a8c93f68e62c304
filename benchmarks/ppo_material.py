"""What the stage 3 comparisons start from: a trained policy and reward of one shape, prompts, and silenced tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from harness import ROOT, deepspeed, run
from material import (
    MAX_LENGTH,
    NOT_THE_DEMOS,
    TEMPLATE,
    Base,
    demonstrations,
    rankings,
    write_demonstrations,
    write_rankings,
)

from rlhf.data.encode import Encoder
from rlhf.data.records import Prompt
from rlhf.data.sources import DataSource, read_records
from rlhf.models.loading import load_causal_lm

LOUDNESS = -200.0  # the logit of a silenced token


@dataclass(frozen=True)
class Stages:
    """Runs of stages 1 and 2 that start from one base, in one folder."""

    data: Path
    base: Base
    work: Path

    @property
    def log(self) -> Path:
        return self.work / "stages.log"

    def sft(self, rows: int, *words: str) -> Path:
        """The run folder of stage 1 on the first rows, 8 a step."""
        records, _ = demonstrations(self.data / "sft_train.jsonl", self.base, rows)
        train = write_demonstrations(self.work / "sft.jsonl", records)
        return self._stage("sft", "step1_sft", f"data.train={train}", "log.samples_every_steps=null", *words)

    def reward(self, start: Path, rows: int, *words: str) -> Path:
        """The run folder of stage 2 on the first pairs, 8 a step, from the model folder `start`."""
        records, _ = rankings(self.data / "preference_train.jsonl", self.base, rows)
        train = write_rankings(self.work / "pairs.jsonl", records)
        return self._stage("reward", "step2_reward", f"model.path={start}", f"data.train={train}", *words)

    def _stage(self, name: str, script: str, *words: str) -> Path:
        folder = self.work / name
        if (folder / "model" / "manifest.json").is_file():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        alike = [
            "--config", str(ROOT / "configs" / "demo" / f"{name}.yaml"), f"run.dir={folder}",
            f"model.path={self.base.path}", f"data.template={TEMPLATE}", "data.eval=[]",
            f"data.max_length={MAX_LENGTH}", "train.batch_size=8", "train.epochs=1", "checkpoint.every_steps=100000",
            *NOT_THE_DEMOS[name],
        ]  # fmt: skip
        run(deepspeed(ROOT / "scripts" / f"{script}.py", *alike, *words), self.log)
        return folder


@dataclass(frozen=True)
class Prompts:
    """The same prompts for both sides: `records` as JSONL for this project, `ids` as JSON for TRL."""

    records: Path
    ids: Path
    num_rows: int
    mean_tokens: float


def make_prompts(
    sources: Sequence[DataSource], base: Base, folder: Path, *, count: int, max_tokens: int, name: str
) -> Prompts:
    """The first `count` prompts that need no cut."""
    encoder = Encoder(base.tokenizer, 10**6)
    texts, ids = [], []
    for record in (each for source in sources for each in read_records(source, Prompt, on_bad_row="skip").records):
        encoded = encoder.prompts([record])[0]
        if len(encoded.ids) <= max_tokens and len(record.messages) == 1 and len(ids) < count:
            texts.append(record.messages[0].content)
            ids.append(encoded.ids.tolist())
    assert len(ids) == count, f"{len(ids)} prompts of at most {max_tokens} tokens, {count} wanted"
    records, for_trl = folder / f"{name}.jsonl", folder / f"{name}-ids.json"
    lines = [json.dumps({"prompt": text, "source": name}, ensure_ascii=False) + "\n" for text in texts]
    records.write_text("".join(lines), encoding="utf-8")
    for_trl.write_text(json.dumps({"ids": ids, "texts": texts}, ensure_ascii=False), encoding="utf-8")
    return Prompts(records, for_trl, count, sum(map(len, ids)) / count)


def silenced(model: Path, out: Path, tokens: Sequence[int]) -> Path:
    """A copy of a GPT-NeoX folder that never samples `tokens`.

    The final norm gives h = gain * x + bias with the x of a token summing to 0, so a head row of k / gain has the
    logit k * sum(bias / gain) wherever it is read.
    """
    if (out / "config.json").is_file():
        return out
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("config.json"), dirs_exist_ok=True)
    causal = load_causal_lm(str(model)).model
    norm = causal.gpt_neox.final_layer_norm
    with torch.no_grad():
        direction = 1 / norm.weight.double()
        constant = float(norm.bias.double() @ direction)
        assert abs(constant) > 1e-2, "the final norm's bias is too small to silence a token by"
        for token in tokens:
            causal.get_output_embeddings().weight[token] = (direction * (LOUDNESS / constant)).float()
    causal.config._attn_implementation = "sdpa"
    causal.save_pretrained(out)
    return out
