"""DeepSpeed and torch.distributed live here and nowhere else."""
