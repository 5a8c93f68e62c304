"""What every stage has around its steps: command line, ranks, lock, resume, watchdog, metrics.

May import: evaluate, and the layers below.
"""
