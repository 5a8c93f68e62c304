"""Training, development and test files without a prompt in common.

May import: html, data, and the layers below.
"""
