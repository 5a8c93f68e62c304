"""The prompts of `rlhf/curate/augment/texts`, filled in, and the JSON objects that answer them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from rlhf.curate.endpoint.messages import ChatMessage, json_schema_format

Structured = Literal["schema", "object", "prompt"]


def prompt_texts(name: str) -> Mapping[str, Any]:
    """The prompts of one file, by their names."""
    source = resources.files("rlhf.curate.augment") / "texts" / f"{name}.yaml"
    loaded: Mapping[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return loaded


def messages(system: str, user: str, **values: object) -> tuple[ChatMessage, ...]:
    """A system turn and a user turn, in which `$names` are replaced by the values (inserted literally)."""
    return (
        {"role": "system", "content": system},
        {"role": "user", "content": Template(user).substitute(values)},
    )


def clean_text(text: str) -> str:
    """Text in NFC, without outer whitespace."""
    return unicodedata.normalize("NFC", text.strip())


Text = Annotated[str, AfterValidator(clean_text)]


class ReplySchema(BaseModel):
    """The JSON object that a reply must be; a subclass declares its keys, in order."""

    model_config = ConfigDict(strict=True, json_schema_extra={"additionalProperties": False})

    @classmethod
    def response_format(cls, structured: Structured) -> dict[str, Any] | None:
        """The `response_format` of a request: the schema, JSON mode, or None to rely on the prompt alone."""
        if structured == "prompt":
            return None
        if structured == "object":
            return {"type": "json_object"}
        return json_schema_format(cls.__name__, cls.model_json_schema())

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The object in a reply, texts stripped and NFC; None where a key is missing or of another type."""
        # Without a schema, models put code fences or a sentence around the object.
        found = re.search(r"\{.*\}", text, re.DOTALL)
        try:
            return cls.model_validate_json(found[0]) if found else None
        except ValidationError:
            return None
