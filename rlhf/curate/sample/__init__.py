"""K sampled answers per prompt.

May import: curate.endpoint, models, rollout, and the layers below.
"""
