"""Sampling: answers of a model with the log-probabilities of the distribution they were sampled from.

May import: engine, and the layers below.
"""
