"""A client of OpenAI-compatible chat endpoints, with rate limit, cache and budget.

May import: config, and the layers below.
"""
