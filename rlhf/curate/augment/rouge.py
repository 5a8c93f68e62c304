"""Similarity of instructions: ROUGE-L over Korean tokens, against all instructions seen so far."""

from __future__ import annotations

import re
import unicodedata

from rlhf.errors import require_packages

ROUNDING = 1e-6  # for rapidfuzz a similarity of 0.6 does not reach a cutoff of 0.6
_WORD = re.compile(r"[가-힣]+|[^\W_가-힣]+")
_PARTICLE = re.compile(
    r"(?P<stem>[가-힣]+?)(?P<particle>에서는|에서의|으로는|에게서|이라는|라는|에서|에게|한테|께서|부터|까지|으로|처럼|보다|마다|이나|이랑|과의|와의"
    r"|은|는|이|가|을|를|에|의|로|와|과|도|만|랑)"
)


def korean_tokens(text: str) -> list[str]:
    """The words of a text in lower case, with the particle of a Hangul word as a token of its own.

    Otherwise 도서관에서 and 도서관의 would have nothing in common. Verb endings are not split off.
    """
    tokens: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFC", text).lower()):
        cut = _PARTICLE.fullmatch(word)
        tokens += [cut["stem"], cut["particle"]] if cut else [word]
    return tokens


class SeenInstructions:
    """The instructions so far, and the search for one that a new instruction repeats.

    Args:
        threshold: ROUGE-L from which two are too similar, above 0; 0.7 in Self-Instruct (arXiv:2212.10560).

    Raises: ConfigError when rapidfuzz is not installed.
    """

    def __init__(self, threshold: float) -> None:
        require_packages("rapidfuzz", extra="llm", needed_by="the comparison of instructions")
        self._threshold = threshold
        self._texts: list[str] = []
        self._encoded: list[str] = []
        self._letters: dict[str, str] = {}

    def similar_to(self, text: str) -> str | None:
        """The instruction most similar to `text`, if any reaches the threshold."""
        from rapidfuzz import process
        from rapidfuzz.distance import Indel

        # Indel's normalised similarity is the F1 of ROUGE-L: 2 x longest common subsequence / sum of the lengths.
        found = process.extractOne(
            self._encode(text),
            self._encoded,
            scorer=Indel.normalized_similarity,
            score_cutoff=self._threshold - ROUNDING,
        )
        return None if found is None else self._texts[found[2]]

    def add(self, text: str) -> None:
        self._texts.append(text)
        self._encoded.append(self._encode(text))

    def _encode(self, text: str) -> str:
        # One character per token: rapidfuzz compares strings many times faster than lists.
        return "".join(
            self._letters.setdefault(token, chr(0x10000 + len(self._letters))) for token in korean_tokens(text)
        )
