"""Data: records, the files they are read from, their tokens, packed rows, and measures of Korean text.

May import: ops, and the layers below.
"""
