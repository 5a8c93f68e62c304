"""A reward model's report card: accuracy, calibration, shortcuts, leakage, probes.

May import: curate.row_texts, models, html, and the layers below.
"""
