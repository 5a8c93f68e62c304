"""The demo: embedded Korean data, a tiny base model made on the spot, and the quickstart.

May import: demo.world, train, and the layers below.
"""
