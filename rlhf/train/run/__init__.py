"""What surrounds the steps of every stage: command line, ranks, lock, resume, watchdog, metrics.

May import: engine, artifacts, plan, and the layers below.
"""
