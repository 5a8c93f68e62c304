"""Memory and time of a run, computed before anything is allocated.

May import: artifacts, and the layers below.
"""
