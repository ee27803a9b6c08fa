"""Plain values as PostgreSQL wants them, by the type of the column."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import msgspec

from inferloop.core.errors import InvalidInput

Convert = Callable[[Any], Any]


def converter(kind: str, column: str) -> Convert:
    """A function from a plain value to one of this column type; null stays null.

    A moment may be ISO 8601 or seconds since the epoch.
    """
    convert = _BY_TYPE.get(kind, _as_given)

    def checked(value: Any) -> Any:
        if value is None:
            return None
        try:
            return convert(value)
        except (TypeError, ValueError, OverflowError, InvalidOperation) as error:
            raise InvalidInput(f"column {column!r} is {kind}, the value is {value!r:.80}") from error

    return checked


def _whole(value: Any) -> int:
    if isinstance(value, str) or not float(value).is_integer():
        raise ValueError(value)
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, str):
        raise TypeError(value)
    return float(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text.replace("\x00", "\ufffd")  # PostgreSQL has no text with NUL


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode().replace("\\u0000", "\\ufffd")


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not math.isfinite(value):
        raise ValueError(value)
    return datetime.fromtimestamp(float(value), UTC)


def _naive(value: Any) -> datetime:
    return _moment(value).astimezone(UTC).replace(tzinfo=None)


def _date(value: Any) -> date:
    return date.fromisoformat(value) if isinstance(value, str) and len(value) == 10 else _moment(value).date()


def _as_given(value: Any) -> Any:
    return value


_BY_TYPE: dict[str, Convert] = {
    "text": _text,
    "character varying": _text,
    "character": _text,
    "json": _json,
    "jsonb": _json,
    "boolean": _bool,
    "smallint": _whole,
    "integer": _whole,
    "bigint": _whole,
    "real": _number,
    "double precision": _number,
    "numeric": lambda value: Decimal(str(value)),
    "timestamp with time zone": _moment,
    "timestamp without time zone": _naive,
    "date": _date,
    "uuid": lambda value: UUID(str(value)),
    "double precision[]": lambda value: [_number(item) for item in value],
    "real[]": lambda value: [_number(item) for item in value],
    "text[]": lambda value: [_text(item) for item in value],
}
