"""Identity, key and time of a message: where they come from, and what forms they may have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pydantic

from inferloop.core.errors import InvalidInput
from inferloop.core.sample import Message, Sample

FROZEN = pydantic.ConfigDict(extra="forbid", frozen=True)

_LAST_SECOND = 1e11
"""Larger numbers are milliseconds (then micro-, then nanoseconds): in seconds this is the year 5138, in milliseconds 1973."""


class Origin(pydantic.BaseModel):
    """A value beside the payload: a header by its name, or a level of the topic counted from 0 (-1 is the last)."""

    model_config = FROZEN

    header: str | None = None
    topic: int | None = None

    @pydantic.model_validator(mode="after")
    def _one(self) -> Origin:
        if (self.header is None) == (self.topic is None):
            raise ValueError("must have either header or topic")
        return self

    def __str__(self) -> str:
        return f"header {self.header!r}" if self.header is not None else f"level {self.topic} of the topic"

    def read(self, message: Message) -> str | None:
        """The value in one message; None if it is not there."""
        if self.header is not None:
            return message.headers.get(self.header)
        levels = message.topic.split("/")
        level = self.topic or 0
        return levels[level] if -len(levels) <= level < len(levels) else None


class BodyConfig(pydantic.BaseModel):
    """Options of a codec whose payload is one value: identity, key and time come from headers or the topic."""

    model_config = FROZEN

    id: Origin | None = None
    key: Origin | None = None
    time: Origin | None = None

    def sample(self, message: Message, name: str, value: Any) -> Sample:
        """The Sample with one field."""
        moment = None if self.time is None else time_s(present(self.time.read(message), "time", str(self.time)), str(self.time))
        return Sample(
            fields={name: value},
            id="" if self.id is None else identity([(self.id.read(message), str(self.id))], "id"),
            key="" if self.key is None else identity([(self.key.read(message), str(self.key))], "key"),
            time=moment,
            raw=message.payload,
            source=message.source,
            topic=message.topic,
        )


def identity(parts: Sequence[tuple[Any, str]], what: str) -> str:
    """One text of one or several values, each with its place; different values never give the same text.

    Raises:
        InvalidInput: a part is missing, empty, or neither text nor a whole number.
    """
    texts = [_identity_part(present(value, what, place), what, place) for value, place in parts]
    if len(texts) == 1:
        return texts[0]
    return "|".join(text.replace("\\", "\\\\").replace("|", "\\|") for text in texts)


def present(value: Any, what: str, place: str) -> Any:
    """The value, or `InvalidInput` if it is missing."""
    if value is None:
        raise InvalidInput(f"the {what} is missing at {place}")
    return value


def time_s(value: Any, place: str) -> float:
    """Seconds since the epoch of an ISO 8601 text (UTC where it names no zone) or a number of s, ms, us or ns.

    Raises:
        InvalidInput: another form.
    """
    number = _number(value)
    if number is None:
        return _iso_s(value, place)
    for scale in (1.0, 1e3, 1e6, 1e9):
        if 0 <= number / scale < _LAST_SECOND:
            return number / scale
    raise InvalidInput(f"the time at {place} is out of range")


def as_number(value: str) -> float:
    """The number that a text stands for; `ValueError` for anything else, `nan` and `1_000` included."""
    number = float(value)
    if "_" in value or number != number or number in (float("inf"), float("-inf")):
        raise ValueError(value)
    return number


def as_bool(value: str) -> bool:
    """The truth that a text stands for; `ValueError` for anything else."""
    known = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    try:
        return known[value.strip().lower()]
    except KeyError:
        raise ValueError(value) from None


TEXT_FORMS: dict[str, Callable[[str], Any]] = {"string": str, "number": as_number, "bool": as_bool}
"""How a text becomes a value of a declared type."""


def _identity_part(value: Any, what: str, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(f"the {what} at {place} must be text or a number, it is {kind_of(value)}")
    text = str(value)
    if not text:
        raise InvalidInput(f"the {what} at {place} is empty")
    return text


def kind_of(value: Any) -> str:
    """The kind of a value of a document in words, without the value."""
    names = {
        bool: "true or false",
        str: "text",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        bytes: "bytes",
    }
    other = {"NoneType": "null", "ndarray": "an array"}
    return names.get(type(value)) or other.get(type(value).__name__, type(value).__name__)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e30 else -1.0
    try:
        return as_number(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _iso_s(value: Any, place: str) -> float:
    if not isinstance(value, str):
        raise InvalidInput(f"the time at {place} must be ISO 8601 or a number, it is {kind_of(value)}")
    try:
        moment = datetime.fromisoformat(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"the time at {place} is neither ISO 8601 nor a number", hint="e.g. 2026-01-01T09:59:58Z") from error
