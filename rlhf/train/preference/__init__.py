"""What preference optimisation is made of: rows, the reference's log-probabilities, a step, the evaluation.

May import: train.policy, train.run, evaluate, and the layers below.
"""
