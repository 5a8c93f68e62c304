"""Values that a template asks its caller for, written into the template itself.

A reasoning model's template opens an answer with a thought unless it is told not to, and others write today's date: a
model would be trained with one prompt and served with another. The values are set in the template where the caller does
not give them, so that transformers, vLLM and the service render the prompt of training from the exported folder.
"""

from __future__ import annotations

import json
import re
from datetime import date

DAY = date(2024, 7, 26)  # the date that Llama 3's templates write without a clock
DEFAULTS = {"enable_thinking": "false", "date_string": f"'{DAY:%d %b %Y}'"}
_CLOCK = re.compile(r"""\bstrftime_now\(\s*(['"])(.*?)\1\s*\)""")


def with_defaults(template: str) -> tuple[str, list[str]]:
    """The template with a default for each value that it asks for and does not set first; and what was added.

    A template that has its defaults already is returned as it is.
    """
    added, notes = [], []
    for name, value in DEFAULTS.items():
        default = f"{{% if {name} is not defined %}}{{% set {name} = {value} %}}{{% endif %}}"
        if re.search(rf"\b{name}\b", template) and not template.startswith(default) and default not in template[:500]:
            added.append(default)
            notes.append(f"{name} = {value}")
    if "strftime_now(" in template and "macro strftime_now" not in template:
        formats = {found: DAY.strftime(found) for _, found in _CLOCK.findall(template)}
        known = json.dumps(formats, ensure_ascii=False)
        added.append(f"{{% macro strftime_now(format) %}}{{{{ {known}[format] or '{DAY}' }}}}{{% endmacro %}}")
        notes.append(f"today = {DAY}")
    if not added:
        return template, []
    prefix = "".join(added) + "{{ '' }}"  # a block tag would eat a newline that the template starts with
    return prefix + template, [f"chat template: {', '.join(notes)} unless the caller says otherwise"]
