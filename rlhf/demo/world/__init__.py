"""The demo's world: a grammar of everyday Korean chats, from which its data, and the rules that measure answers, are made.

May import: artifacts, data, and the layers below.
"""
