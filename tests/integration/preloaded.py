"""What a stage script imports, imported once: the fork server loads this module, and every start forks from there."""

import os

# As tests/support/launcher.py sets them, and before the packages that read them are imported.
os.environ |= {"DS_ACCELERATOR": "cpu", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}

import deepspeed  # noqa: F401
import peft  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
from transformers import (  # noqa: F401
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPTNeoXForCausalLM,
    PreTrainedTokenizerFast,
)

import rlhf.train.ppo
import rlhf.train.reward
import rlhf.train.sft  # noqa: F401
