"""Answers drawn from a model, with the log-probabilities of the distribution that drew them."""
