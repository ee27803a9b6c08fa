"""InfluxDB's line protocol: one point a line.

    MEASUREMENT[,TAG=VALUE ...] FIELD=VALUE[,FIELD=VALUE ...] TIMESTAMP

A backslash goes before what would end a part; the format has no way to write a line break outside of a text, nor a backslash at
the end of a name or tag.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from inferloop.core.errors import InvalidInput

Kind = Literal["float", "integer", "string", "boolean"]
Precision = Literal["ns", "us", "ms", "s"]
PER_SECOND: Mapping[Precision, int] = {"ns": 10**9, "us": 10**6, "ms": 10**3, "s": 1}

_INT64 = 2**63
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f]|\\\Z")
_NAME = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ "})
_MEASUREMENT = str.maketrans({",": "\\,", " ": "\\ "})
_TEXT = str.maketrans({'"': '\\"', "\\": "\\\\"})


def is_name(text: str) -> bool:
    """Whether a measurement, tag or field can have this name; those that begin with `_` are InfluxDB's own, `#` is a comment."""
    return bool(text) and text[0] not in "_#" and text != "time" and not _UNWRITABLE.search(text)


def line(measurement: str, tags: Mapping[str, Any], fields: Mapping[str, Any], timestamp: int) -> str:
    """One point.

    Args:
        measurement: as `is_name` wants it, as are the keys of tags and fields.
        tags: plain values; a missing one is left out.
        fields: `bool`, `int`, `float` and `str` as what they are; a missing one, or a number that is none, is left out.
        timestamp: in the unit that the writer says.

    Raises:
        InvalidInput: a value cannot be written, or no field has one.
    """
    written_tags = "".join(
        f",{name.translate(_NAME)}={text.translate(_NAME)}" for name, value in sorted(tags.items()) if (text := _tag(name, value))
    )
    written = [f"{name.translate(_NAME)}={text}" for name, value in fields.items() if (text := _field(name, value))]
    if not written:
        raise InvalidInput(f"none of the fields {', '.join(fields)} has a value")
    return f"{measurement.translate(_MEASUREMENT)}{written_tags} {','.join(written)} {timestamp}"


def as_kind(name: str, value: Any, kind: Kind | None) -> Any:
    """A field's value as the type that its column has; without one it stays what it is.

    Raises:
        InvalidInput: it is nothing of that kind.
    """
    if value is None or kind is None:
        return value
    if kind == "string":
        return value if isinstance(value, str) else _plain_text(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "float" and number:
        return float(value)
    if kind == "integer" and number and float(value).is_integer():
        return int(value)
    if kind == "boolean" and isinstance(value, bool):
        return value
    raise InvalidInput(f"field {name!r} is {value!r}, which is no {kind}")


def timestamp(value: Any, precision: Precision) -> int:
    """A point in time, in whole units since the epoch.

    Args:
        value: seconds since the epoch, or ISO 8601 with its offset.
        precision: the unit.

    Raises:
        InvalidInput: it is neither, or out of range.
    """
    try:
        if isinstance(value, str):
            moment = dt.datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise ValueError
            since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
            seconds = Decimal(since // dt.timedelta(microseconds=1)) / 10**6
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        else:
            seconds = Decimal(repr(value))
        units = int(seconds * PER_SECOND[precision])
    except (ValueError, ArithmeticError) as error:
        raise InvalidInput(f"{value!r} is no time: seconds since the epoch, or ISO 8601 with its offset") from error
    if abs(units) * (10**9 // PER_SECOND[precision]) >= _INT64:
        raise InvalidInput(f"{value!r} is a time out of range")
    return units


def _tag(name: str, value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else _plain_text(value)
    if _UNWRITABLE.search(text):
        raise InvalidInput(f"tag {name!r} is {text[:80]!r}: no tag has a line break or ends with a backslash")
    return text


def _field(name: str, value: Any) -> str:
    """As the type that it has; empty for nothing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            raise InvalidInput(f"field {name!r} is {value}, beyond 64 bits")
        return f"{value}i"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    if isinstance(value, str):
        if "\x00" in value:
            raise InvalidInput(f"field {name!r} has a NUL character in it")
        return f'"{value.translate(_TEXT)}"'
    if value is None:
        return ""
    raise InvalidInput(f"field {name!r} is {type(value).__name__}, a field is one number, text or truth value")


def _plain_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    raise InvalidInput(f"{value!r} is no single value")
