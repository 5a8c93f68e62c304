"""A client of OpenAI-compatible chat endpoints, with rate limit, cache and budget.

May import: artifacts, and the layers below.
"""
