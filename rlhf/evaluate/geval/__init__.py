"""Answers judged by language models, criterion by criterion, and the G-Eval table.

May import: evaluate.answers, curate, and the layers below.
"""
