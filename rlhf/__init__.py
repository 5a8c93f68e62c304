"""Korean-first RLHF: supervised fine-tuning, reward model and PPO under DeepSpeed ZeRO.

May import: nothing of rlhf.
"""

import os

__version__ = "0.1.0"

# OpenMP threads that wait by spinning stand in each other's way as soon as the machine is shared: with one other
# busy process on 2 cores a training step was measured 10 times slower. Read when torch is loaded, so set here.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
