"""Several policies from one SFT model on the same prompts: figures, corrected comparisons, the verdict in words.

May import: evaluate.answers, evaluate.compare, and the layers below.
"""
