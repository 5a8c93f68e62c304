"""What surrounds the steps of every stage: command line, ranks, lock, resume, watchdog, metrics.

May import: evaluate, and the layers below.
"""
