"""A client of OpenAI-compatible chat endpoints: paced, cached, within a budget.

May import: config, and the layers below.
"""
