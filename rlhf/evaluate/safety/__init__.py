"""Answers to red-team prompts: refusals, echoes, support.

May import: evaluate.answers, and the layers below.
"""
