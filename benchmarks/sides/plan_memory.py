"""A shipped stage under the launcher, with each rank's peak memory until its last step was logged written to a file.

deepspeed sides/plan_memory.py RESULT STAGE --config ... key=value
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import transformers.models.gpt_neox.modeling_gpt_neox  # noqa: F401 - an import, to be counted as one

from rlhf.engine.deepspeed import InferenceModel, TrainedModel
from rlhf.engine.shared import SharedEngine
from rlhf.train.ppo import train_ppo
from rlhf.train.reward import train_reward
from rlhf.train.run.metrics import MetricsLog
from rlhf.train.run.run import Run, launch
from rlhf.train.sft import train_sft

sys.path.insert(0, str(Path(__file__).parent))
from memory import PeakMemory

TRAIN = {"sft": train_sft, "reward": train_reward, "ppo": train_ppo}


def noted_after(owner: Any, name: str, label: str, memory: PeakMemory, peaks: dict[str, float]) -> None:
    """Notes the peak so far each time a method of a class returns; the first notes of a label are kept apart."""
    method = getattr(owner, name)

    def noted(*given: Any, **named: Any) -> Any:
        found = method(*given, **named)
        count = sum(each.startswith(label) for each in peaks)
        peaks[f"{label}_{count + 1}_mib"] = memory.peak_mib()
        return found

    setattr(owner, name, noted)


def main() -> int:
    local = [word for word in sys.argv[1:] if word.startswith("--local_rank")]
    result, stage, *rest = [word for word in sys.argv[1:] if word not in local]

    def measured(run: Run) -> None:
        import peft  # noqa: F401
        import torch.optim.adamw  # noqa: F401
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401

        memory, peaks = PeakMemory(), {}
        for owner in (InferenceModel, TrainedModel, SharedEngine):
            noted_after(owner, "__init__", "wrapped", memory, peaks)
        noted_after(MetricsLog, "log", "step", memory, peaks)
        TRAIN[stage](run)
        steps = [value for name, value in peaks.items() if name.startswith("step")]
        figures = {"peak_mib": memory.peak_mib(), "training_mib": max(steps), **peaks}
        Path(f"{result}.{os.environ['RANK']}").write_text(json.dumps(figures))

    return launch(stage, [*local, *rest], measured)


if __name__ == "__main__":
    sys.exit(main())
