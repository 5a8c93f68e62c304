"""Training, development and test files without a prompt in common.

May import: data, and the layers below.
"""
