"""Two models on the same prompts: paired differences with intervals.

May import: evaluate.answers, evaluate.reward, and the layers below.
"""
