"""Whether a data file can be trained on, what is wrong with it, and what it would cost.

May import: data, and the layers below.
"""
