"""What runs left, read and shown: lists, reports of a run or of a project, comparisons; and sweeps, which start runs.

May import: train, and the layers below.
"""
