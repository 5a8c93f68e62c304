"""The quickstart's summary on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rlhf.demo.measure import NUM_SAMPLES
from rlhf.evaluate.answers.measures import MEASURES

Summary = dict[str, Any]
PRINTED = ("polite", "rude", "distinct2", "distinct_answers", "repeated", "eos", "length_chars", "reward")
WORLD = {
    "fluency": "words that are words of the demo's world",
    "on_topic": "names what the prompt is about",
    "answers_prompt": "says what the world has for this prompt",
    "rude_lines": "has a rude line",
}


def print_summary(summary: Summary, out: Path) -> None:
    """The table of both policies, the reward model, best-of-16, and answers side by side."""
    console = Console()
    console.print(_table(summary))
    sft, reward, ppo = summary["sft"], summary["reward"], summary["ppo"]
    torn = summary["replacement_characters"]
    console.print(f"broken syllables (U+FFFD) in all answers: SFT {torn['before']}, PPO {torn['after']}")
    console.print(f"SFT: held-out loss {sft['eval_loss_before']:.3f} before, {sft['eval_loss']:.3f} after")
    low, high = reward["accuracy_interval"]
    console.print(
        f"reward model: accuracy {reward['accuracy']:.3f} [{low:.3f}, {high:.3f}] on held-out pairs, neighbouring "
        f"ranks {reward['accuracy_neighbours']:.3f}; baseline: pick the longer answer "
        f"{reward['longer_answer_accuracy']:.3f}"
    )
    if "accuracy_topic" in reward:
        console.print(
            f"reward model: {reward['accuracy_topic']:.3f} on pairs that differ in topic alone; character n-grams "
            f"{reward['shortcut_ngram']:.3f} on all pairs. {reward['verdict']}"
        )
    console.print(f"KL to the SFT model: {ppo['kl']:.2f} nats per sequence")
    if best := ppo["best_of_16"]:
        console.print(
            f"reward on {best['num_prompts']} prompts: PPO {best['ppo_mean']:.2f} at {best['ppo_kl']:.2f} nats, "
            f"best-of-16 of the SFT model {best['mean']:.2f} at {best['kl']:.2f} nats, SFT {best['sft_mean']:.2f}"
        )
    for sample in ppo["samples"]:
        gloss = f"  ({sample['gloss']})" if sample["gloss"] else ""
        console.print(
            f"\n[bold]{sample['prompt']}[/bold]{gloss}\n  SFT: {sample['before']}\n  PPO: {sample['after']}",
            highlight=False,
        )
    console.print(
        f"\n{summary['seconds']:.0f} s in all, {summary['cpu_seconds']:.0f} s of processors; everything is in "
        f"{out}/summary.json"
    )


def _table(summary: Summary) -> Table:
    ppo = summary["ppo"]
    table = Table(title=f"{ppo['num_prompts']} held-out prompts, {NUM_SAMPLES} answers each")
    for column in ("", "SFT", "PPO"):
        table.add_column(column, justify="left" if not column else "right")
    for key, title in WORLD.items():
        if figures := summary[key]:
            table.add_row(title, f"{figures['before']:.3f}", f"{figures['after']:.3f}")
    titles = {name: known.title for name, known in MEASURES.items()} | {"reward": "reward model's score"}
    for name in PRINTED:
        table.add_row(titles[name], f"{ppo['before'][name]:.3f}", f"{ppo['after'][name]:.3f}")
    return table
