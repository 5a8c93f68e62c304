"""From chat logs, instructions and endpoints to training sets: each module reads rows and writes rows.

May import: artifacts, and the layers below.
"""
