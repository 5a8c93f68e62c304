"""Public benchmarks through lm-eval (KoBEST).

May import: curate.sample, and the layers below.
"""
