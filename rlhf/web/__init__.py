"""What every web application here stands on: the request guard and the socket server.

May import: errors, and the layers below.
"""
