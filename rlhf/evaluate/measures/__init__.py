"""Rules on text measured on sentences labelled by hand: precision, recall, agreement.

May import: evaluate.safety, and the layers below.
"""
