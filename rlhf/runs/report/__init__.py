"""`rlhf report`: a run, or the runs and comparisons of a project, as one page in Korean and English.

May import: the modules of `rlhf.runs`, and the layers below.
"""
