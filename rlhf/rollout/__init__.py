"""Sampling: answers of a model with the log-probabilities of the distribution they were sampled from.

May import: models, and the layers below.
"""
