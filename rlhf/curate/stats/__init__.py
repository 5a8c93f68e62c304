"""What is in data files, in numbers, as text or as a page.

May import: curate.check, html, and the layers below.
"""
