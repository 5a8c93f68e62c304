"""What a stage script imports, imported once: the fork server loads this module, and every start forks from there."""

import deepspeed  # noqa: F401
import peft  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
from transformers import (  # noqa: F401
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPTNeoXForCausalLM,
    PreTrainedTokenizerFast,
)

import rlhf.train.dpo
import rlhf.train.ppo
import rlhf.train.reward
import rlhf.train.sft  # noqa: F401
