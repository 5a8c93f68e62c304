"""Data: records, the files they are read from, tokens, packed rows, Korean text.

May import: ops, and the layers below.
"""
