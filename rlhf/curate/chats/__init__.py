"""Converts exports of chat apps to conversations.

May import: curate.chats.kakao, data, and the layers below.
"""
