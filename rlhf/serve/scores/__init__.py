"""Scores of answers by reward models: the shape that stage 3 asks in, and those of vLLM.

May import: serve.chat, models, web, and the layers below.
"""
