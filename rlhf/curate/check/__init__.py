"""Whether a data file can be trained on, what is wrong with it, and what it would cost.

May import: curate.formats, data, and the layers below.
"""
