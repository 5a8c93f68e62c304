"""A reward model's report card: accuracy, calibration, shortcuts, leakage, probes.

May import: curate, and the layers below.
"""
