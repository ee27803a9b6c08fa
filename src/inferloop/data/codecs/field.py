"""One field of a Sample: its type, what stands for it where it is missing, and the places beside the payload."""

from __future__ import annotations

import base64
import binascii
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pydantic

from inferloop.core.errors import InvalidInput
from inferloop.core.sample import Message
from inferloop.data.codecs.envelope import FROZEN, TEXT_FORMS, Origin, kind_of

FieldType = Literal["string", "number", "bool", "bytes", "array", "any"]

_WANTED = {
    "string": "text",
    "number": "a number",
    "bool": "true or false",
    "bytes": "bytes, or text in base64",
    "array": "a list of numbers",
}


class FieldOptions(pydantic.BaseModel):
    """What every field takes beside its place in the payload, which a subclass adds and names in `place`."""

    model_config = FROZEN
    place: ClassVar[str]

    header: str | None = None
    topic: int | None = None
    type: FieldType = "any"
    required: bool = False
    default: Any = None

    @pydantic.model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(getattr(self, place) is not None for place in (self.place, "header", "topic")) != 1:
            raise ValueError(f"must have exactly one of {self.place}, header and topic")
        if getattr(self, self.place) is None and self.type in ("bytes", "array"):
            raise ValueError("headers and topics are text: the type must be string, number or bool")
        return self

    @property
    def origin(self) -> Origin | None:
        """The place beside the payload; None where the value stands in the payload."""
        if self.header is None and self.topic is None:
            return None
        return Origin(header=self.header, topic=self.topic)


def beside(origin: Origin, message: Message, config: FieldOptions, name: str) -> Any:
    """The value of a field that stands in a header or the topic; None if it is not there.

    Raises:
        InvalidInput: the text there is no number, or neither true nor false.
    """
    text = origin.read(message)
    if text is None or config.type not in TEXT_FORMS:
        return text
    try:
        return TEXT_FORMS[config.type](text)
    except ValueError as error:
        raise InvalidInput(f"field {name!r} must be {_WANTED[config.type]}, {origin} is other text") from error


def settled(value: Any, config: FieldOptions, name: str, place: object) -> Any:
    """The value as its type, or the default of a missing one; None without either.

    Raises:
        InvalidInput: of another type, or missing and required; names field and place.
    """
    if value is not None:
        return typed(value, config.type, name)
    if config.default is not None:
        return typed(config.default, config.type, name)
    if config.required:
        raise InvalidInput(f"field {name!r} is missing at {place}")
    return None


def typed(value: Any, kind: str, name: str) -> Any:
    """The value as its declared type: numbers as float, arrays as NumPy arrays float64, base64 text as bytes.

    Raises:
        InvalidInput: it is of another kind; names the field and both kinds.
    """
    if kind == "any":
        return value
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "number" and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308:
        return float(value)
    if kind == "array" and isinstance(value, list | np.ndarray):
        return _array(value, name)
    if kind == "bytes" and isinstance(value, bytes | str):
        return value if isinstance(value, bytes) else _from_base64(value, name)
    raise InvalidInput(f"field {name!r} must be {_WANTED[kind]}, it is {kind_of(value)}")


def _array(value: Any, name: str) -> Any:
    try:
        array = np.array(value)
        if array.dtype.kind in "iufb":
            return array.astype(np.float64)
        if array.dtype.kind == "O":  # null is a missing value
            return array.astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        pass
    raise InvalidInput(f"field {name!r} must be a list of numbers of one shape, it has something else in it")


def _from_base64(value: str, name: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"field {name!r} must be {_WANTED['bytes']}, it is other text") from error
