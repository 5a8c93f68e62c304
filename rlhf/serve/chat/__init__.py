"""Chat and completions: models, batching, requests, replies, the chat page.

May import: rollout, models, web, and the layers below.
"""
