"""Personal information in text, by the rules of ko-pii: identifiers, contacts, addresses.

Only information with a recognisable form is masked. Names, jobs, ages and web addresses stay: guesses at Korean names
hit everyday words (전화줘 looks like a name beside a number), and a chatbot trained on text full of such gaps would
reproduce the gaps.
"""

from __future__ import annotations

import re
from collections import Counter
from importlib import resources
from typing import Any

import yaml

from rlhf.errors import require_packages

# The labels of ko-pii, and the masks that replace the text.
MASKS: dict[str, str] = yaml.safe_load((resources.files("rlhf.curate") / "privacy.yaml").read_text(encoding="utf-8"))
_MARKS = re.compile(r"[\d@＠①-⓿:]")  # without one of these no kind can match
# Every kind matches one of these, so that most lines, even those with a number, need no closer look.
_WORTH_A_LOOK = re.compile(
    r"[@＠①-⓿]"  # e-mail, and disguised digits
    r"|(?:\d\D{0,3}){7}"  # numbers of persons, cards, accounts and telephones
    r"|\d+\.\d+\.\d+\.\d|[0-9a-fA-F]:[0-9a-fA-F:]*:"  # IP
    r"|\d{2,3}\s*[가-힣]\s*\d{4}"  # number plates
    r"|[로길동읍면리가]\s*\d"  # addresses
)
_SHORT_DISTRICTS = frozenset({"중구", "동구", "서구", "남구", "북구", "대구"})  # others are longer


def mask_personal(text: str) -> tuple[str, dict[str, int]]:
    """The text with personal information replaced by its kind, such as [전화번호], and the number of each kind.

    Keys of the counts are ko-pii's labels, those of `MASKS`. Other text stays as it is.

    Raises:
        ConfigError: when ko-pii is not installed.
    """
    pieces: list[str] = []
    end, found = 0, _found(text)
    for start, stop, label in found:
        pieces += [text[end:start], MASKS[label]]
        end = stop
    return "".join([*pieces, text[end:]]), _counted(found)


def find_personal(text: str) -> dict[str, int]:
    """The number of pieces of personal information in `text`, by ko-pii's label. Raises as `mask_personal`."""
    return _counted(_found(text))


def _counted(found: list[tuple[int, int, str]]) -> dict[str, int]:
    return dict(Counter(label for _, _, label in found))


def require_privacy(otherwise: str = "") -> None:
    """Raises ConfigError when ko-pii is not installed; call it before reading anything.

    Args:
        otherwise: how to go on without it, such as "--keep-pii to leave it in".
    """
    require_packages("ko_pii", extra="pii", needed_by="the search for personal information", otherwise=otherwise)


def _found(text: str) -> list[tuple[int, int, str]]:
    """(start, end, label) of each, in order; ko-pii has settled overlaps."""
    require_privacy()
    import ko_pii

    if _MARKS.search(text) is None or _WORTH_A_LOOK.search(text) is None:
        return []
    hits = ko_pii.detect_all(text, include=MASKS)
    return sorted((hit.start, hit.end, hit.label) for hit in hits if _is_sure(hit))


def _is_sure(hit: Any) -> bool:
    if hit.label == "IP":
        return hit.extra.get("version") == 4 or hit.text.count(":") > 3  # std::array holds d::a, a short IPv6
    return hit.label != "ADDRESS" or _is_address(hit)


def _is_address(hit: Any) -> bool:
    """Whether it has a number, a street or quarter, and a district that is not an everyday word.

    By its form alone 친구 운동 30분 would be an address: 친구 a district, 운동 a quarter, 30 the number.
    """
    from ko_pii.dictionaries.legal_dongs import is_legal_dong

    if hit.extra.get("format") not in ("road_name", "jibun"):
        return False
    quarter = hit.extra.get("dong")
    districts = (hit.extra.get("districts") or "").split()
    real = all(name in _SHORT_DISTRICTS or len(name) > 2 for name in districts) and "반드시" not in districts
    return real and (quarter is None or quarter.endswith(("읍", "면")) or is_legal_dong(quarter))
