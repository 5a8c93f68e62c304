"""What preference optimisation is made of: rows, the reference's log-probabilities, a step, the evaluation.

May import: train.run, train.policy's samples, and the layers below.
"""
