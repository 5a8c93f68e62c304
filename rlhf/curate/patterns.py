"""Regular expressions that are kept as data, in a YAML file beside the code that uses them."""

from __future__ import annotations

import re
from importlib import resources

import yaml

_REFERENCE = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def read_patterns(package: str, file: str, **given: str) -> dict[str, re.Pattern[str]]:
    """The expressions of a file by their names.

    An entry is an expression, or a list of alternatives. `{name}` in it stands for the text of an entry above, or for
    one that is `given`; the repetitions of a regular expression, such as {2,5}, hold digits only.
    """
    sources = dict(given)
    text = (resources.files(package) / file).read_text(encoding="utf-8")
    for name, entry in yaml.safe_load(text).items():
        joined = entry if isinstance(entry, str) else "|".join(entry)
        sources[name] = _REFERENCE.sub(lambda found: sources[found[1]], joined)
    return {name: re.compile(source) for name, source in sources.items() if name not in given}
