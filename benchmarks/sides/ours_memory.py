"""A shipped stage under the launcher, with its peak memory written to a file.

deepspeed sides/ours_memory.py RESULT STAGE --config ... key=value
"""

import json
import sys
from pathlib import Path

import transformers.models.gpt_neox.modeling_gpt_neox  # noqa: F401 - an import, to be counted as one

from rlhf.train.reward import train_reward
from rlhf.train.run import Run, launch
from rlhf.train.sft import train_sft

sys.path.insert(0, str(Path(__file__).parent))
from memory import PeakMemory

TRAIN = {"sft": train_sft, "reward": train_reward}


def main() -> int:
    local = [word for word in sys.argv[1:] if word.startswith("--local_rank")]
    result, stage, *rest = [word for word in sys.argv[1:] if word not in local]

    def measured(run: Run) -> None:
        import torch.optim.adamw  # noqa: F401
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401

        memory = PeakMemory()
        TRAIN[stage](run)
        Path(result).write_text(json.dumps({"peak_mib": memory.peak_mib()}))

    return launch(stage, [*local, *rest], measured)


if __name__ == "__main__":
    sys.exit(main())
