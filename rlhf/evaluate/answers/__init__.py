"""Answers drawn for held-out prompts, and what is measured on them.

May import: curate, and the layers below.
"""
