"""Answers scored by a judge model (G-Eval), and the rankings made from the scores.

May import: curate.endpoint, data, and the layers below.
"""
