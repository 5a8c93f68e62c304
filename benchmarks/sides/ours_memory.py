"""A shipped stage under the launcher, with its peak memory written to a file.

deepspeed sides/ours_memory.py RESULT STAGE --config ... key=value
"""

import json
import sys
from pathlib import Path
from typing import Any

import transformers.models.gpt_neox.modeling_gpt_neox  # noqa: F401 - an import, to be counted as one

from rlhf.train.ppo import train_ppo
from rlhf.train.reward import train_reward
from rlhf.train.run.metrics import MetricsLog
from rlhf.train.run.run import Run, launch
from rlhf.train.sft import train_sft

sys.path.insert(0, str(Path(__file__).parent))
from memory import PeakMemory

TRAIN = {"sft": train_sft, "reward": train_reward, "ppo": train_ppo}


def main() -> int:
    local = [word for word in sys.argv[1:] if word.startswith("--local_rank")]
    result, stage, *rest = [word for word in sys.argv[1:] if word not in local]

    def measured(run: Run) -> None:
        import torch.optim.adamw  # noqa: F401
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401

        memory = PeakMemory()
        peaks = {"training_mib": 0.0}  # until the last step was logged, so without the export
        log = MetricsLog.log

        def measured_log(self: MetricsLog, step: int, values: Any) -> None:
            log(self, step, values)
            peaks["training_mib"] = memory.peak_mib()

        MetricsLog.log = measured_log  # type: ignore[method-assign]
        TRAIN[stage](run)
        Path(result).write_text(json.dumps({"peak_mib": memory.peak_mib(), **peaks}))

    return launch(stage, [*local, *rest], measured)


if __name__ == "__main__":
    sys.exit(main())
