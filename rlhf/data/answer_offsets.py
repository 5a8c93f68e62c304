"""Which token of an answer ends a piece of its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def tokens_at(ids: Sequence[int], offsets: Sequence[int], text: Callable[[list[int]], str]) -> list[int]:
    """For each offset, the token that completes the first `offset` characters of the answer's text.

    That is the first token after which the decoded text begins with them: the token that holds the character before
    the offset; of several that hold parts of this character's bytes, the last. Characters are those of `text(ids)`, in
    which special tokens are nothing and bytes that form no character are U+FFFD.

    Args:
        ids: the answer, at least one token.
        offsets: ascending, 0 to the length of the text; 0 gives the first token.
        text: decodes ids.

    Returns: indices into `ids`, ascending.
    """
    whole = text(list(ids))
    found, last = [], 0
    read = text(list(ids[:1]))
    for offset in offsets:
        piece = whole[:offset]
        while not read.startswith(piece) and last < len(ids) - 1:
            last += 1
            read = text(list(ids[: last + 1]))
        found.append(last)
    return found
