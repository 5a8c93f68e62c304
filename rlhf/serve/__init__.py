"""Models behind an HTTP interface that clients of OpenAI's service know: chat, files, fine-tuning jobs.

May import: serve.chat, serve.scores, serve.jobs, train, and the layers below.
"""
