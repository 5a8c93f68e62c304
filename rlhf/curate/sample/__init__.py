"""K sampled answers per prompt.

May import: curate.endpoint, models, rollout.vllm, and the layers below.
"""
