"""Scores of answers in data files by a reward model.

May import: curate, models, and the layers below.
"""
