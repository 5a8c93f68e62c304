"""Memory and time of a run, computed before anything is allocated.

May import: rollout, and the layers below.
"""
