"""Instructions written by a model: Self-Instruct and Evol-Instruct.

May import: curate.endpoint, data, and the layers below.
"""
