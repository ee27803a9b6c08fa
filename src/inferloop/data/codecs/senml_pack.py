"""A SenML pack (RFC 8428) to its resolved records: whole names, absolute times, values with their bases added."""

from __future__ import annotations

import base64
import binascii
import re
from math import isfinite
from typing import Any, NamedTuple

from inferloop.core.errors import InvalidInput
from inferloop.data.codecs.envelope import kind_of

VERSION = 10

CBOR_LABELS = {
    "-1": "bver", "-2": "bn", "-3": "bt", "-4": "bu", "-5": "bv", "-6": "bs",
    "0": "n", "1": "u", "2": "v", "3": "vs", "4": "vb", "5": "s", "6": "t", "7": "ut", "8": "vd",
}  # fmt: skip
"""The labels of JSON for the numbers that stand for them in CBOR."""

_VALUES = ("v", "vs", "vb", "vd")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")
_FIRST_ABSOLUTE_S = 2**28
"""A smaller time is relative to now."""

_LAST_SECOND = 1e11

Value = float | str | bool | bytes


class Record(NamedTuple):
    """One resolved record.

    Attributes:
        name: base name and name together.
        local: the name alone; empty where the base name is all.
        time: seconds since the epoch.
        unit: empty where there is none.
        value: None where there is only a sum.
        sum: the integral over time; None where there is none.
    """

    name: str
    local: str
    time: float
    unit: str
    value: Value | None
    sum: float | None


class Pack(NamedTuple):
    """The records in the order in which they came, and the base name of each."""

    records: tuple[Record, ...]
    bases: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the records have in common: the base name, or without one the name; empty where they differ."""
        names = {base or record.name for base, record in zip(self.bases, self.records, strict=True)}
        return names.pop() if len(names) == 1 else ""


class _Bases(NamedTuple):
    """What the records after it inherit."""

    name: str = ""
    time: float = 0.0
    unit: str = ""
    value: float = 0.0
    sum: float | None = None
    version: int = VERSION


def resolve(document: Any, now: float) -> Pack:
    """Resolve the records of a decoded pack with the labels of JSON.

    Args:
        document: what the parser gave; `vd` is text in base64url or bytes.
        now: what relative times refer to, seconds since the epoch.

    Raises:
        InvalidInput: no pack, of a newer version, or a record that is not as the RFC has it; names record and label.
    """
    if not isinstance(document, list) or not document:
        what = "an empty list" if document == [] else kind_of(document)
        raise InvalidInput(f"a SenML pack must be a list of records, it is {what}")
    bases = _Bases()
    records, names = [], []
    for index, content in enumerate(document):
        place = f"record {index} of the pack"
        if not isinstance(content, dict):
            raise InvalidInput(f"{place} must be an object, it is {kind_of(content)}")
        _check_mandatory(content, place)
        bases = _rebased(bases, content, place, is_first=index == 0)
        records.append(_record(content, bases, now, place))
        names.append(bases.name)
    return Pack(tuple(records), tuple(names))


def _check_mandatory(content: dict[str, Any], place: str) -> None:
    if any(label.endswith("_") for label in content):
        raise InvalidInput(f"{place} has a field that must be understood (its label ends with _), which is not")


def _rebased(bases: _Bases, content: dict[str, Any], place: str, *, is_first: bool) -> _Bases:
    version = _number(content, "bver", place)
    if version is not None and version != bases.version:
        if version != int(version) or version < 1:
            raise InvalidInput(f"{place}: bver must be a whole number above 0, it is another number")
        if version > VERSION:
            raise InvalidInput(f"the pack has version {version:g}, versions up to {VERSION} are read")
        if not is_first:
            raise InvalidInput(f"{place}: bver must be the same in the whole pack")
    name, time, unit = _text(content, "bn", place), _number(content, "bt", place), _text(content, "bu", place)
    value, total = _number(content, "bv", place), _number(content, "bs", place)
    return _Bases(
        name=bases.name if name is None else name,
        time=bases.time if time is None else time,
        unit=bases.unit if unit is None else unit,
        value=bases.value if value is None else value,
        sum=bases.sum if total is None else total,
        version=bases.version if version is None else int(version),
    )


def _record(content: dict[str, Any], bases: _Bases, now: float, place: str) -> Record:
    local = _text(content, "n", place) or ""
    value = _value(content, bases, place)
    added = _number(content, "s", place)
    total = None if added is None and bases.sum is None else (added or 0.0) + (bases.sum or 0.0)
    if value is None and total is None:
        raise InvalidInput(f"{place} has neither a value nor a sum", hint="one of v, vs, vb, vd and s must be there")
    return Record(
        name=_name(bases.name + local, place),
        local=local,
        time=_time_s(bases.time + (_number(content, "t", place) or 0.0), now, place),
        unit=_text(content, "u", place) or bases.unit,
        value=value,
        sum=total,
    )


def _value(content: dict[str, Any], bases: _Bases, place: str) -> Value | None:
    present = [label for label in _VALUES if content.get(label) is not None]
    if len(present) > 1:
        raise InvalidInput(f"{place} has {len(present)} values ({', '.join(present)}), one is allowed")
    if not present:
        return None
    if present[0] == "v":
        return (_number(content, "v", place) or 0.0) + bases.value
    if present[0] == "vs":
        return _text(content, "vs", place)
    value = content[present[0]]
    if present[0] == "vd":
        return _data(value, place)
    if not isinstance(value, bool):
        raise InvalidInput(f"{place}: vb must be true or false, it is {kind_of(value)}")
    return value


def _data(value: Any, place: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            padded = value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4)
            return base64.b64decode(padded, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(f"{place}: vd must be base64url, it is other text") from error
    raise InvalidInput(f"{place}: vd must be base64url or bytes, it is {kind_of(value)}")


def _name(name: str, place: str) -> str:
    if not name:
        raise InvalidInput(f"{place} has no name", hint="neither bn nor n is there")
    if not _NAME.fullmatch(name):
        hint = "letters, digits and - : . / _ are allowed, the first must be a letter or a digit"
        raise InvalidInput(f"{place} has an ill-formed name", hint=hint)
    return name


def _time_s(time: float, now: float, place: str) -> float:
    seconds = time if time >= _FIRST_ABSOLUTE_S else now + time
    if not abs(seconds) < _LAST_SECOND:
        raise InvalidInput(f"{place}: its time is out of range", hint="SenML counts seconds, not milliseconds")
    return seconds


def _text(content: dict[str, Any], label: str, place: str) -> str | None:
    value = content.get(label)
    if value is None or isinstance(value, str):
        return value
    raise InvalidInput(f"{place}: {label} must be text, it is {kind_of(value)}")


def _number(content: dict[str, Any], label: str, place: str) -> float | None:
    value = content.get(label)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{place}: {label} must be a number, it is {kind_of(value)}")
    if not abs(value) < 1e300 or not isfinite(value):
        raise InvalidInput(f"{place}: {label} is out of range")
    return float(value)
