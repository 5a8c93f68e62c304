"""Stage 1: supervised fine-tuning.

deepspeed scripts/step1_sft.py --config configs/demo/sft.yaml [key=value ...] [--resume auto] [--dry-run]

Reads a causal LM and demonstrations; leaves run.dir/model, a causal LM that answers and ends with EOS.
"""

import sys

from rlhf.train.run.before_start import checked

if __name__ == "__main__":
    checked("sft", sys.argv[1:])  # a mistake is told before torch and DeepSpeed are imported

    from rlhf.train.run.run import launch, leave
    from rlhf.train.sft import train_sft

    leave(launch("sft", sys.argv[1:], train_sft))
