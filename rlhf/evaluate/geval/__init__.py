"""Answers graded by a judge model, criterion by criterion.

May import: evaluate.answers, curate, and the layers below.
"""
