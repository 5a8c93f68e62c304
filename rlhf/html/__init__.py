"""Standalone HTML pages and SVG plots, fetched from nowhere.

May import: errors, and the layers below.
"""
