"""Hugging Face models: loaded, adapted and quantised, with packed attention and heads. No DeepSpeed in here.

May import: data, and the layers below.
"""
