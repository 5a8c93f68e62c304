"""What a machine has, what of it does not fit together, and proofs that the fast paths are right on it.

May import: plan, and the layers below.
"""
