"""Statistics of data files, as text or as a page.

May import: curate.check, html, and the layers below.
"""
