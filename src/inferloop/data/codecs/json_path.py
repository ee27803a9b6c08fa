"""JSONPath, compiled once, with a fast way for plain paths like `$.order.total`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jsonpath

from inferloop.core.errors import InvalidConfig

_PLAIN = re.compile(r"\$(?:\.[A-Za-z_][A-Za-z0-9_]*)+")

Find = Callable[[Any], Any]
"""The value in a document; None where it is missing or null."""


def compile_path(path: str) -> Find:
    """The function that finds `path` in a decoded JSON document.

    A path that can match several places (`$..x`, `$.list[*]`, filters) finds the list of all matches, or None without any.

    Raises:
        InvalidConfig: not a JSONPath that starts with `$`.
    """
    if _PLAIN.fullmatch(path):
        return _plain(tuple(path[2:].split(".")))
    if not path.startswith("$"):
        raise InvalidConfig([f"{path!r} is not a JSONPath, it must start with $"])
    try:
        compiled = jsonpath.compile(path)
    except jsonpath.JSONPathError as error:
        raise InvalidConfig([f"{path!r} is not a JSONPath: {str(error).splitlines()[0]}"]) from error
    single = isinstance(compiled, jsonpath.JSONPath) and compiled.singular_query()
    return _first(compiled) if single else _all(compiled)


def _first(compiled: Any) -> Find:
    def find(document: Any) -> Any:
        match = compiled.match(document) if isinstance(document, dict | list) else None
        return None if match is None else match.value

    return find


def _all(compiled: Any) -> Find:
    # the package would parse a text as JSON
    return lambda document: (compiled.findall(document) if isinstance(document, dict | list) else None) or None


def _plain(keys: tuple[str, ...]) -> Find:
    if len(keys) == 1:
        key = keys[0]
        return lambda document: document.get(key) if type(document) is dict else None

    def find(document: Any) -> Any:
        for key in keys:
            if type(document) is not dict:
                return None
            document = document.get(key)
        return document

    return find
