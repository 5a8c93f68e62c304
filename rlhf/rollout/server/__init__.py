"""The engine's side of the vLLM rollout: a process that may run in another environment than the trainer.

Only the standard library, numpy, torch and vLLM are imported here, so that the environment of the engine needs nothing
of this project's dependencies. Modules import one another relatively: the process loads them as a package of its own.

May import: nothing of rlhf.
"""
