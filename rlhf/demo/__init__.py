"""The demo: embedded Korean data, a tiny base model made on the spot, and the quickstart.

May import: train, and the layers below.
"""
