"""Evaluation: what a model's answers and scores are worth, as numbers with a stated range."""
