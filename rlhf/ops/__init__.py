"""Pure functions of the mathematics: tensors and numbers in, tensors and numbers out; imports no other package of rlhf.

Masks are boolean and True means "counts"; nothing outside a mask, NaN included, reaches a result or a gradient.
Losses are sums divided by a count that the caller totals over all ranks.

May import: nothing of rlhf.
"""
