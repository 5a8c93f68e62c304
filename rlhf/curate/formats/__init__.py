"""Converts rows of public formats into rows of this package, and back.

May import: curate.chats, data, and the layers below.
"""
