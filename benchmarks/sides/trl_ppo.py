"""TRL's PPOTrainer on ready-made prompts: trl_ppo.py SPEC.json. Runs in TRL's environment.

Keys of the specification:
    base, reward: folders of the policy (and reference), and of the reward (and value) model.
    task, options: a function of tasks.py instead of the reward model; values then start at 0 on the policy's weights.
    prompts: file with {"ids": [[...]], "texts": [...]}.
    batch, micro, new_tokens, steps, epochs, kl_coefficient, missing_eos_penalty: of every run.
    parts: whether to time parts.
    runs: [{"seed", "lr", "result"}].
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import tasks
import torch
from datasets import Dataset
from parts import Parts
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
    set_seed,
)
from transformers.modeling_outputs import BaseModelOutput
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer


class Watch(TrainerCallback):
    """When each iteration ended, what its answers scored before any penalty, and how long they were."""

    def __init__(self, pad_id: int, eos_id: int, parts: Parts | None) -> None:
        self._pad_id, self._eos_id, self._parts = pad_id, eos_id, parts
        self._scores: list[float] = []
        self._lengths: list[int] = []
        self._ends: list[bool] = []
        self.found: dict[str, list[float]] = {
            name: [] for name in ("seconds", "reward", "kl", "eos_rate", "response_tokens")
        }

    def saw_scores(self, scores: Tensor) -> None:
        self._scores += scores.tolist()

    def saw_answers(self, answers: Tensor) -> None:
        self._lengths += (answers != self._pad_id).sum(1).tolist()
        self._ends += (answers == self._eos_id).any(1).tolist()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **rest: Any) -> None:
        self.found["kl"].append(logs["objective/kl"])

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self._parts is not None:
            self._parts.mark()
        self.found["seconds"].append(time.perf_counter())
        for name, values in (("reward", self._scores), ("response_tokens", self._lengths), ("eos_rate", self._ends)):
            self.found[name].append(sum(values) / len(values))
            values.clear()


class RuleBackbone(nn.Module):
    """Reads a task's scores off the ids, in the place of a transformer: the score stands at every position."""

    def __init__(self, tokenizer: Any, prompts: dict[str, list], task: str, options: dict[str, Any]) -> None:
        super().__init__()
        self._tokenizer, self._score, self._options = tokenizer, getattr(tasks, task), options
        self._texts = {tuple(ids): text for ids, text in zip(prompts["ids"], prompts["texts"], strict=True)}
        self._lengths = sorted({len(ids) for ids in self._texts}, reverse=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **rest: Any) -> BaseModelOutput:
        prompts, answers, finished = [], [], []
        for row, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
            ids = [token for token, counts in zip(row, mask, strict=True) if counts]
            start = next(count for count in self._lengths if tuple(ids[:count]) in self._texts)
            prompts.append(self._texts[tuple(ids[:start])])
            finished.append(ids[-1] == self._tokenizer.eos_token_id)
            answers.append(self._tokenizer.decode(ids[start:], skip_special_tokens=True))
        scores = torch.tensor(self._score(prompts, answers, finished, **self._options))
        return BaseModelOutput(hidden_states=(scores[:, None, None].expand(-1, input_ids.shape[1], 1),))


class RuleReward(nn.Module):
    """A task with the interface that TRL's get_reward expects of a reward model."""

    base_model_prefix = "backbone"

    def __init__(self, backbone: RuleBackbone) -> None:
        super().__init__()
        self.backbone, self.score = backbone, nn.Identity()


def configuration(spec: dict[str, Any], run: dict[str, Any]) -> PPOConfig:
    """TRL's defaults but for what both sides have alike, and its GPU settings, which slow a CPU down."""
    return PPOConfig(
        output_dir=str(Path(run["result"]).parent / "trl"),
        seed=run["seed"],
        learning_rate=run["lr"],
        lr_scheduler_type="constant",
        per_device_train_batch_size=spec["micro"],
        gradient_accumulation_steps=spec["batch"] // spec["micro"],
        total_episodes=spec["batch"] * spec["steps"],
        num_ppo_epochs=spec["epochs"],
        num_mini_batches=1,
        response_length=spec["new_tokens"],
        temperature=1.0,
        stop_token="eos",
        kl_coef=spec["kl_coefficient"],
        missing_eos_penalty=spec["missing_eos_penalty"] or None,
        num_sample_generations=0,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )


def models(spec: dict[str, Any], tokenizer: Any, prompts: dict[str, list]) -> dict[str, Any]:
    """Policy, reference, reward and value."""

    def policy() -> Any:
        return AutoModelForCausalLM.from_pretrained(spec["base"], dtype="float32")

    def scalar(path: str) -> Any:
        return AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype="float32")

    if spec.get("task"):
        reward: nn.Module = RuleReward(RuleBackbone(tokenizer, prompts, spec["task"], spec["options"]))
        value = scalar(spec["base"])
        nn.init.zeros_(value.score.weight)
    else:
        reward, value = scalar(spec["reward"]), scalar(spec["reward"])
    return {"model": policy(), "ref_model": policy(), "reward_model": reward, "value_model": value}


def observe(trainer: PPOTrainer, watch: Watch) -> None:
    """Lets `watch` see scores and answers as they pass."""
    get_reward, truncate = ppo_trainer.get_reward, ppo_trainer.truncate_response

    def scored(model: Any, *words: Any) -> Any:
        found = get_reward(model, *words)
        if model is trainer.reward_model:
            watch.saw_scores(found[1])
        return found

    def truncated(*words: Any) -> Tensor:
        answers = truncate(*words)
        watch.saw_answers(answers)
        return answers

    ppo_trainer.get_reward, ppo_trainer.truncate_response = scored, truncated


def time_parts(trainer: PPOTrainer, parts: Parts) -> None:
    """The same parts as on our side."""
    forward, get_reward = ppo_trainer.forward, ppo_trainer.get_reward
    of_reference = parts.timed("reference", forward)
    of_policy = parts.timed("policy_forward", forward)
    of_reward, of_value = parts.timed("reward", get_reward), parts.timed("value", get_reward)
    ppo_trainer.forward = lambda model, *rest: (of_policy if model is trainer.model else of_reference)(model, *rest)
    ppo_trainer.get_reward = lambda model, *rest: (of_reward if model is trainer.reward_model else of_value)(
        model, *rest
    )
    ppo_trainer.batch_generation = parts.timed("generate", ppo_trainer.batch_generation)
    ppo_trainer.selective_log_softmax = parts.timed("log_probabilities", ppo_trainer.selective_log_softmax)
    critic = trainer.model.critic_backbone
    inner = critic.forward
    in_update = parts.timed("value_forward", inner)

    def critic_forward(*rest: Any, **named: Any) -> Any:
        # called with a graph in the update, and without one by get_reward
        return (in_update if torch.is_grad_enabled() else inner)(*rest, **named)

    critic.forward = critic_forward
    trainer.accelerator.backward = parts.timed("backward", trainer.accelerator.backward)
    trainer.optimizer.step = parts.timed("optimizer", trainer.optimizer.step)


def train(spec: dict[str, Any], run: dict[str, Any]) -> None:
    set_seed(run["seed"])
    tokenizer = AutoTokenizer.from_pretrained(spec["base"], padding_side="left")
    prompts = json.loads(Path(spec["prompts"]).read_text())
    parts = Parts() if spec["parts"] else None
    watch = Watch(tokenizer.pad_token_id, tokenizer.eos_token_id, parts)
    trainer = PPOTrainer(
        args=configuration(spec, run),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"input_ids": prompts["ids"]}),
        # never read: TRL builds a loader for it all the same
        eval_dataset=Dataset.from_dict({"input_ids": prompts["ids"][:1]}),
        callbacks=[watch],
        **models(spec, tokenizer, prompts),
    )
    originals = {name: getattr(ppo_trainer, name) for name in REPLACED}
    observe(trainer, watch)
    if parts is not None:
        time_parts(trainer, parts)
        parts.mark()
    trainer.train()
    for name, original in originals.items():
        setattr(ppo_trainer, name, original)
    timed = {} if parts is None else {"parts": parts.rows[1:]}
    Path(run["result"]).write_text(json.dumps({**watch.found, **timed}))


REPLACED = (
    "forward", "get_reward", "truncate_response", "batch_generation", "selective_log_softmax"
)  # fmt: skip


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    for run in spec["runs"]:
        train(spec, run)


if __name__ == "__main__":
    main()
