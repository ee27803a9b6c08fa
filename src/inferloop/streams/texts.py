"""Texts with `{name}` places for values of the payload: subjects, bodies and recipients of mails, names of objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)\}")


class TextTemplate:
    """A text whose places are filled from one payload; `{fields.order}` looks inside. Other braces are themselves."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = _PLACE.split(text)

    def __repr__(self) -> str:
        return repr(self.text)

    def __str__(self) -> str:
        return self.text

    @property
    def places(self) -> tuple[str, ...]:
        """The names in it, in order."""
        return tuple(self._parts[1::2])

    def filled(self, payload: Mapping[str, Any], escape: Callable[[str], str] = str) -> str:
        """The text for one payload; a value that is missing is empty.

        Args:
            payload: plain values by name.
            escape: what is done to every value, e.g. for HTML.
        """
        parts = self._parts
        return "".join(escape(_readable(_value(payload, part))) if index % 2 else part for index, part in enumerate(parts))


def unknown_places(templates: Mapping[str, TextTemplate | None], known: Mapping[str, Any]) -> list[str]:
    """One problem for each place of `templates`, by their keys, that `known` does not have."""
    return [
        f"{key}: no value named {place!r}; known: {', '.join(known)}"
        for key, template in templates.items()
        for place in (template.places if template is not None else ())
        if place.partition(".")[0] not in known
    ]


def _value(payload: Mapping[str, Any], place: str) -> Any:
    value: Any = payload
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _readable(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return msgspec.json.encode(value).decode()


def _template(value: object) -> TextTemplate:
    if not isinstance(value, str) or not value:
        raise ValueError("must be text")
    return TextTemplate(value)


Text = Annotated[
    TextTemplate,
    PlainValidator(_template),
    PlainSerializer(lambda template: template.text),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
