"""Reads exports of KakaoTalk as events.

May import: curate.chats, data, and the layers below.
"""
