"""The stages. Scripts wire, these modules sequence, `rlhf.ops` computes.

May import: train.policy, train.preference, train.run, evaluate, and the layers below.
"""
