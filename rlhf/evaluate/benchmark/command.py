"""`rlhf evaluate benchmark`: KoBEST by lm-eval, from local files, without the network.

lm-eval's own task files are included as they are (prompts, choices, scoring); only the data source is replaced, by a
file that names the local rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from rlhf.artifacts.files import sha256_of, write_text
from rlhf.curate.sample.sources import model_folder, weights_hash
from rlhf.errors import DataError, require_packages
from rlhf.evaluate.benchmark.kobest import KOBEST, find_files, write_rows
from rlhf.evaluate.benchmark.options import BenchmarkOptions
from rlhf.evaluate.intervals import wilson
from rlhf.evaluate.report_folder import report_folder, write_report

PREFIX = "kobest_"


def evaluate_benchmark(
    models: Sequence[str], data: str, out: Path, options: BenchmarkOptions = BenchmarkOptions()
) -> dict[str, Any]:
    """Runs KoBEST on every model; writes out/benchmark.json and .html, prints a summary, and returns the report.

    Args:
        data: folder of the tasks' files; tasks without one are skipped and reported.
        num_fewshot: examples from the train split, shown before each question.

    Raises: ConfigError without lm-eval; DataError for missing files or bad rows.
    """
    require_packages("lm_eval", extra="eval", needed_by="the benchmark")
    folders = [model_folder(model) for model in models]
    files, shots = find_files(data, "test"), find_files(data, "train")
    _check_files(data, files, shots, options.num_fewshot)
    report_folder(out)
    with tempfile.TemporaryDirectory() as place:
        names = _write_tasks(Path(place), files, shots if options.num_fewshot else {}, options.limit)
        results = [_run(folder, names, Path(place), options) for folder in folders]
    report: dict[str, Any] = {
        "benchmark": "kobest",
        "lm_eval": version("lm_eval"),
        "num_fewshot": options.num_fewshot,
        "limit": options.limit,
        "data": {name: {"path": str(file), "sha256": sha256_of(file)} for name, file in files.items()},
        "left_out": [name for name in KOBEST if name not in files],
        "models": [
            {"model": model, "sha256": weights_hash(folder), "tasks": result}
            for model, folder, result in zip(models, folders, results, strict=True)
        ],
    }
    write_report(out, "benchmark", report, "benchmark")
    return report


def task_result(samples: Sequence[Mapping[str, Any]], choices: int) -> dict[str, Any]:
    """One task's accuracy with Wilson's interval, macro F1, and the accuracy of always choosing the commonest label."""
    from sklearn.metrics import f1_score

    gold = [int(sample["doc"]["label"]) for sample in samples]
    chosen = [_chosen(sample) for sample in samples]
    result: dict[str, Any] = {
        "num": len(gold),
        "accuracy": wilson(sum(map(int.__eq__, gold, chosen)), len(gold)),
        "macro_f1": float(f1_score(gold, chosen, average="macro")),
        "commonest_label": max(map(gold.count, range(choices))) / len(gold),
    }
    if choices > 2:
        normalised = [_chosen(sample, by_length=True) for sample in samples]
        result["accuracy_by_length"] = wilson(sum(map(int.__eq__, gold, normalised)), len(gold))
    return result


def _chosen(sample: Mapping[str, Any], by_length: bool = False) -> int:
    """The likeliest choice; `by_length` divides each log-probability by its characters, as acc_norm does."""
    logprobs = [float(response[0]) for response in sample["filtered_resps"]]
    if by_length:
        logprobs = [each / len(choice) for each, choice in zip(logprobs, sample["doc"]["choices"], strict=True)]
    return max(range(len(logprobs)), key=logprobs.__getitem__)


def _check_files(data: str, files: Mapping[str, Path], shots: Mapping[str, Path], num_fewshot: int) -> None:
    if not files:
        raise DataError(
            "holds no task of KoBEST",
            where=data,
            expected=f"files such as boolq.jsonl or boolq/test.parquet, for {', '.join(KOBEST)}",
            fix="see docs/evaluation.md for the rows it reads",
        )
    without = [name for name in files if name not in shots]
    if num_fewshot and without:
        raise DataError(
            f"no train split of {', '.join(without)}, which --num-fewshot takes its examples from",
            where=data,
            expected=f"e.g. {Path(data) / without[0] / 'train.jsonl'}",
        )


def _write_tasks(place: Path, files: Mapping[str, Path], shots: Mapping[str, Path], limit: int | None) -> list[str]:
    """Writes rows and task files for lm-eval; returns the tasks' names."""
    import lm_eval

    shipped = Path(lm_eval.__path__[0]) / "tasks" / "kobest"
    names = []
    for name, file in files.items():
        rows = {"test": place / f"{name}_test.jsonl"}
        write_rows(KOBEST[name], file, rows["test"], limit)
        if name in shots:
            rows["train"] = place / f"{name}_train.jsonl"
            write_rows(KOBEST[name], shots[name], rows["train"])
        measures = ["acc", "acc_norm"] if KOBEST[name].choices > 2 else ["acc"]
        task = {
            "include": str(shipped / f"kobest_{name}.yaml"),
            "task": f"{PREFIX}{name}_local",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {split: str(path) for split, path in rows.items()},
                "cache_dir": str(place / "cache"),
            },
            "training_split": "train" if "train" in rows else None,
            "validation_split": None,
            "test_split": "test",
            # The F1 of the task files loads a metric from the hub; ours is computed from the samples.
            "metric_list": [{"metric": each, "aggregation": "mean", "higher_is_better": True} for each in measures],
        }
        write_text(place / f"{task['task']}.yaml", yaml.safe_dump(task, allow_unicode=True))
        names.append(name)
    return names


def _run(folder: str, names: Sequence[str], place: Path, options: BenchmarkOptions) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    device = "cuda" if torch.cuda.is_available() else "cpu"
    settled = options.dtype if options.dtype != "auto" else "bfloat16" if device == "cuda" else "float32"
    model = HFLM(pretrained=folder, dtype=settled, device=device, batch_size=options.batch_size)
    manager = TaskManager(include_path=str(place), include_defaults=False)
    wanted = [f"{PREFIX}{name}_local" for name in names]
    # `load` replaces the other method, of which newer releases warn.
    tasks = manager.load(wanted)["tasks"] if hasattr(manager, "load") else manager.load_task_or_group(wanted)
    for task in tasks.values():
        task.set_config(key="num_fewshot", value=options.num_fewshot)
        task.set_fewshot_seed(seed=1234)
    found = evaluate(lm=model, task_dict=tasks, bootstrap_iters=0)
    assert found is not None
    results = {}
    for name in names:
        key = f"{PREFIX}{name}_local"
        results[name] = task_result(found["samples"][key], KOBEST[name].choices)
        results[name]["accuracy_by_lm_eval"] = float(found["results"][key]["acc,none"])
    return results
