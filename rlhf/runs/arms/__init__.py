"""`rlhf arms`: several arms trained from one SFT model, judged on the same prompts, and reported side by side.

May import: train, runs, and the layers below.
"""
