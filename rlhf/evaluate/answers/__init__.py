"""Answers drawn for held-out prompts, and what is measured on them.

May import: curate.sample, models, html, and the layers below.
"""
