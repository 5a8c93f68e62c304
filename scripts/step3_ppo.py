"""Stage 3: PPO actor-critic.

deepspeed scripts/step3_ppo.py --config configs/demo/ppo.yaml [key=value ...] [--resume auto] [--dry-run]

Reads an SFT artifact (actor.path), a stage 2 artifact (reward.path) and prompts; leaves run.dir/model, the actor.
"""

import sys

from rlhf.train.run.before_start import checked

if __name__ == "__main__":
    checked("ppo", sys.argv[1:])  # a mistake is told before torch and DeepSpeed are imported

    from rlhf.train.ppo import train_ppo
    from rlhf.train.run.run import launch, leave

    leave(launch("ppo", sys.argv[1:], train_ppo))
