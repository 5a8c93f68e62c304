"""What every stage has around its steps: command line, ranks, lock, resume, watchdog, metrics.

May import: engine, artifacts, plan, and the layers below.
"""
