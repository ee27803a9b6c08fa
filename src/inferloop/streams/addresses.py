"""Addresses in the config of sources and sinks, checked where they are written down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from inferloop.core.errors import InvalidInput


def checked_url(value: str, *schemes: str) -> str:
    """The address as it is; one with an open `${...}` reference passes.

    Raises:
        ValueError: it has another scheme, or no host.
    """
    if "${" in value:
        return value
    try:
        parts = urlsplit(value)
        sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("must be " + " or ".join(f"{scheme}://HOST[:PORT]" for scheme in schemes))
    return value


class _Address:
    """A topic or subject with `{name}` places for entries of the payload."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = _PLACE.split(text)

    def __repr__(self) -> str:
        return repr(self.text)

    def filled(self, payload: Mapping[str, Any]) -> str:
        """The address for one payload.

        Raises:
            InvalidInput: an entry is missing, is no single value, or would change the levels of the address.
        """
        if len(self._parts) == 1:
            return self.text
        return "".join(self._value(payload, part) if index % 2 else part for index, part in enumerate(self._parts))

    def _value(self, payload: Mapping[str, Any], name: str) -> str:
        value = payload.get(name)
        text = f"{value:g}" if isinstance(value, float) else str(value)
        if not isinstance(value, str | int | float) or not text or _LEVELS.search(text):
            raise InvalidInput(f"{self.text!r}: the payload's {name!r} is {value!r}, which is no level of an address")
        return text


def _address(value: object) -> _Address:
    if not isinstance(value, str) or not value:
        raise ValueError("must be text")
    if _WILD.search(value):
        raise ValueError(f"{value!r} has a wildcard, a message needs one address")
    return _Address(value)


_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LEVELS = re.compile(r"[/.+#*>\s\x00]")
_WILD = re.compile(r"[+#*>\s\x00]")
Address = Annotated[
    _Address,
    PlainValidator(_address),
    PlainSerializer(lambda address: address.text),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
