"""What every web application here stands on: the request guard, the socket server, the SQLite file.

May import: errors, and the layers below.
"""
