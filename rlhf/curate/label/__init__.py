"""The page on which people rank answers, and the ranking file made from their labels.

May import: web, data, and the layers below.
"""
