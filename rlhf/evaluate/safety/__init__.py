"""How a model answers red-team prompts.

May import: evaluate.answers, and the layers below.
"""
