"""A reward model's report card: accuracy, calibration, shortcuts, leakage, probes.

May import: evaluate.answers, curate, and the layers below.
"""
