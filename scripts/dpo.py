"""Preference optimisation: DPO and its relatives, in place of stages 2 and 3.

deepspeed scripts/dpo.py --config configs/demo/dpo.yaml [key=value ...] [--resume auto] [--dry-run]

Reads an SFT artifact (model.path) and ranked answers, or answers marked good or bad (dpo.loss=kto); leaves
run.dir/model, the policy.
"""

import sys

from rlhf.train.run.before_start import checked

if __name__ == "__main__":
    checked("dpo", sys.argv[1:])  # a mistake is told before torch and DeepSpeed are imported

    from rlhf.train.dpo import train_dpo
    from rlhf.train.run.run import launch, leave

    leave(launch("dpo", sys.argv[1:], train_dpo))
