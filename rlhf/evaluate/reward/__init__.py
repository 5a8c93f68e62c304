"""A reward model's report card: accuracy, calibration, shortcuts, leakage, probes.

May import: data, models, html, and the layers below.
"""
