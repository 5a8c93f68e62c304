"""Evaluation of answers and scores, as numbers with intervals.

May import: evaluate.answers, evaluate.reward, curate, and the layers below.
"""
