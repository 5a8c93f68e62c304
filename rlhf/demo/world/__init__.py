"""The demo's world: a grammar of everyday Korean chats, its data, and rules that measure answers.

May import: artifacts, data, and the layers below.
"""
