"""DeepSpeed and torch.distributed: trained and frozen models under ZeRO, ranks, saved state. Nowhere else.

May import: models, and the layers below.
"""
