"""Stage 2: reward model.

deepspeed scripts/step2_reward.py --config configs/demo/reward.yaml [key=value ...] [--resume auto] [--dry-run]

Reads an SFT artifact (or any causal LM) and ranked answers; leaves run.dir/model, a classifier with one label
whose score is 0 on average over good answers, and model/report_card.json.
"""

import sys

from rlhf.train.run.before_start import checked

if __name__ == "__main__":
    checked("reward", sys.argv[1:])  # a mistake is told before torch and DeepSpeed are imported

    from rlhf.train.reward import train_reward
    from rlhf.train.run.run import launch, leave

    leave(launch("reward", sys.argv[1:], train_reward))
