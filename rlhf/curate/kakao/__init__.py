"""Converts KakaoTalk exports to conversations.

May import: data, and the layers below.
"""
