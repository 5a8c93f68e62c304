"""Filters that drop rows of a data file, each for a stated reason.

May import: data, and the layers below.
"""
