"""Pure tensor functions: tensors and floats in, tensors out; imports torch and nothing of ours outside `ops`.

Masks are boolean and True means "counts"; whatever lies outside a mask, NaN included, reaches neither a
result nor a gradient. Losses are sums divided by a count that the caller totals over all ranks.

May import: nothing of rlhf.
"""
