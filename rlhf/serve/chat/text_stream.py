"""Sampled tokens to text: a character is released when it is complete, and never the beginning of a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what the bytes of half a character are decoded to
CONTEXT = 4  # tokens kept before the newest: some tokenizers decode a first token differently from a later one


class TextStream:
    """The text of one answer.

    A Hangul syllable may be spread over three tokens; its bytes wait for each other. Bytes that never become a
    character are skipped.

    Args:
        decode: ids to text without special tokens.
        stops: texts that end the answer; neither they nor what follows is released.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, tuple(stops)
        self._window: list[int] = []
        self._taken = 0  # characters of the window's text that are settled
        self._held = ""  # settled, but perhaps the beginning of a stop text
        self.num_settled = 0
        self.num_released = 0
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that can be released now that `token` is known."""
        if self.stopped:
            return ""
        self._held += self._settle(token)
        return self._release()

    def finish(self) -> str:
        """The text that was held back, when no token follows."""
        rest, self._held = ("" if self.stopped else self._held), ""
        self.num_released += len(rest)
        return rest

    def _settle(self, token: int) -> str:
        self._window.append(token)
        text = self._decode(self._window)
        whole = text.rstrip(REPLACEMENT)
        new = whole[self._taken :].replace(REPLACEMENT, "")
        self._taken = max(self._taken, len(whole))
        self.num_settled += len(new)
        if len(whole) == len(text) and len(self._window) > 2 * CONTEXT:
            self._shorten(text)
        return new

    def _shorten(self, text: str) -> None:
        """Forgets the beginning of the window, if the rest alone reads the same."""
        rest = self._window[-CONTEXT:]
        alone = self._decode(rest)
        if REPLACEMENT not in alone and text.endswith(alone):
            self._window, self._taken = rest, len(alone)

    def _release(self) -> str:
        places = [place for place in map(self._held.find, self._stops) if place >= 0]
        if places:
            self.stopped = True
            keep = min(places)
        else:
            keep = len(self._held) - max((_overlap(self._held, stop) for stop in self._stops), default=0)
        released, self._held = self._held[:keep], self._held[keep:]
        self.num_released += len(released)
        return released


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` with which `stop` may begin."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
