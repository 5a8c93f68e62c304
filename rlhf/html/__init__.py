"""Pages that stand alone: the template environment, the layout and the parts of a page, SVG plots. Nothing is fetched.

May import: errors, and the layers below.
"""
