"""Two models on the same prompts: paired differences with intervals.

May import: evaluate.answers, evaluate.reward, evaluate.geval, and the layers below.
"""
