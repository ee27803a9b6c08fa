"""A document of a binary format as JSON would have it: text as keys, finite numbers, a bounded depth and size."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

from inferloop.core.errors import InvalidInput
from inferloop.data.codecs.envelope import kind_of

MAX_DEPTH = 100

Foreign = Callable[[Any], Any]
"""What stands for a value that JSON has no type for; raises `InvalidInput` where nothing does."""


def plain(value: Any, size: int, foreign: Foreign) -> Any:
    """The document with whole numbers as keys made text, and NaN made None; `bytes` stay.

    Args:
        value: what the parser of the format gave.
        size: bytes of the payload. A document has no more values than bytes, unless its references repeat some.
        foreign: for the types that only this format has.

    Raises:
        InvalidInput: nested too deep, more values than bytes, an infinite number, a key or a value of another kind.
    """
    return _Walk(size, foreign).value(value, 0)


class _Walk:
    def __init__(self, size: int, foreign: Foreign) -> None:
        self._left = size
        self._foreign = foreign

    def value(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind in (str, bool, bytes):
            return value
        if kind in (int, float):
            return _number(value)
        if depth >= MAX_DEPTH:
            raise InvalidInput(f"the payload is nested deeper than {MAX_DEPTH} levels")
        if kind is list:
            return self._list(value, depth)
        if kind is dict:
            return self._map(value, depth)
        return self.value(self._foreign(value), depth + 1)

    def _list(self, values: list[Any], depth: int) -> list[Any]:
        self._spend(len(values))
        if set(map(type, values)) <= {int, float} and _are_finite(values):  # a signal: not one by one
            return values
        return [self.value(value, depth + 1) for value in values]

    def _map(self, values: dict[Any, Any], depth: int) -> dict[str, Any]:
        self._spend(len(values))
        named = {_key(key): self.value(value, depth + 1) for key, value in values.items()}
        if len(named) < len(values):
            raise InvalidInput("the payload has a key twice, as text and as a number")
        return named

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise InvalidInput("the payload has more values than bytes, its references repeat them")


def _key(key: Any) -> str:
    if type(key) is str:
        return key
    if type(key) is int and key.bit_length() <= 64:
        return str(key)
    raise InvalidInput(f"a key of the payload must be text or a whole number, it is {kind_of(key)}")


def _number(value: float) -> float | None:
    if value != value:
        return None
    try:
        if isinstance(value, int):
            return value if value.bit_length() <= 64 else float(value)
        if isfinite(value):
            return value
    except OverflowError:
        pass
    raise InvalidInput("a number of the payload is not finite or above 1.8e308")


def _are_finite(values: list[Any]) -> bool:
    try:
        return all(map(isfinite, values))
    except OverflowError:
        return False
