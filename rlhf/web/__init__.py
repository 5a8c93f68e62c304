"""What the web applications share: the request guard, the socket server, pages with their style and script.

May import: errors, and the layers below.
"""
