"""Korean-first RLHF: supervised fine-tuning, reward model and PPO under DeepSpeed ZeRO."""

__version__ = "0.1.0"
