"""Checks whether a data file can be trained on, what is wrong with it, and what training on it costs.

May import: curate.formats, data, and the layers below.
"""
