"""KakaoTalk exports into conversations.

May import: data, and the layers below.
"""
