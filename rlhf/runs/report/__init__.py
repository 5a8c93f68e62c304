"""`rlhf report`: a run, or the runs and comparisons of a project, as one page in Korean and English.

May import: train, and the layers below.
"""
