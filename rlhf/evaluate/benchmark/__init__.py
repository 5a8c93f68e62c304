"""Public benchmarks through lm-eval (KoBEST).

May import: curate, and the layers below.
"""
