"""Who may open the label page: the tokens in the links."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PageAccess:
    """The tokens of the owner and of people. `people` is token -> name; empty means that people give a name."""

    owner_token: str = field(repr=False)
    people: Mapping[str, str] = field(default_factory=dict, repr=False)

    def name_of(self, token: str) -> str | None:
        """Whose token it is; every known token is compared, so that the time taken tells nothing."""
        names = [name for known, name in self.people.items() if _same(known, token)]
        return names[0] if names else None

    def is_owner(self, token: str) -> bool:
        """Whether this is the token of the person who started the page."""
        return _same(self.owner_token, token)


def _same(known: str, given: str) -> bool:
    return hmac.compare_digest(known.encode(), given.encode())
