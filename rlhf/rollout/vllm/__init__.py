"""The trainer's side of the vLLM rollout: starts an engine, gives it the weights, and asks it for answers.

May import: rollout, rollout.server, engine, and the layers below.
"""
