"""A JSON document to a Sample: values by JSONPath, types and required fields checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import pydantic

from inferloop.core.errors import InvalidConfig, InvalidInput
from inferloop.core.protocols import Codec
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.content import describe
from inferloop.data.codecs.envelope import FROZEN, Origin, identity, kind_of, present, time_s
from inferloop.data.codecs.json_path import Find, compile_path

_BOM = b"\xef\xbb\xbf"
FieldType = Literal["string", "number", "bool", "array", "any"]


def _checked_path(path: str) -> str:
    try:
        compile_path(path)
    except InvalidConfig as error:
        raise ValueError(error.message) from error
    return path


Path = Annotated[str, pydantic.AfterValidator(_checked_path)]
Paths = Annotated[list[Path], pydantic.Field(min_length=1)]


class FieldConfig(pydantic.BaseModel):
    """One field: where it is, what it must be, and what stands for it where it is missing.

    Attributes:
        required: a message without it is refused; otherwise the Sample lacks the field.
    """

    model_config = FROZEN

    path: Path
    type: FieldType = "any"
    required: bool = False
    default: Any = None


class _Field(NamedTuple):
    name: str
    find: Find
    config: FieldConfig


class JsonCodec(Codec):
    """See `Codec`. `null` counts as missing."""

    class Config(pydantic.BaseModel):
        """Options of the codec `json`.

        Attributes:
            id: the path of the message's identity; a list of paths joins their values.
            key: what state and order belong to.
            time: event time: ISO 8601, or seconds or milliseconds since the epoch.
            fields: values by name, each a path or a mapping with path, type, required and default.
        """

        model_config = FROZEN

        id: Path | Paths | Origin | None = None
        key: Path | Paths | Origin | None = None
        time: Path | Origin | None = None
        fields: dict[str, Path | FieldConfig] = pydantic.Field(min_length=1)

    def __init__(self, config: Config) -> None:
        self._id = _places(config.id)
        self._key = _places(config.key)
        self._time = _places(config.time)
        declared = {
            name: field if isinstance(field, FieldConfig) else FieldConfig(path=field) for name, field in config.fields.items()
        }
        self._fields = tuple(_Field(name, compile_path(field.path), field) for name, field in declared.items())

    def decode(self, message: Message) -> Sample:
        """See `Codec.decode`."""
        document = parse_json(message.payload)
        return Sample(
            fields=self._values(document),
            id=identity(_read(self._id, document, message), "id") if self._id else "",
            key=identity(_read(self._key, document, message), "key") if self._key else "",
            time=self._moment(document, message),
            raw=message.payload,
            source=message.source,
            topic=message.topic,
        )

    def fields(self) -> Mapping[str, str]:
        """See `Codec.fields`."""
        return {field.name: field.config.type for field in self._fields}

    def _values(self, document: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, find, config in self._fields:
            value = find(document)
            if value is not None:
                values[name] = typed(value, config.type, name)
            elif config.default is not None:
                values[name] = typed(config.default, config.type, name)
            elif config.required:
                raise InvalidInput(f"field {name!r} is missing at {config.path}")
        return values

    def _moment(self, document: Any, message: Message) -> float | None:
        if not self._time:
            return None
        value, place = _read(self._time, document, message)[0]
        return time_s(present(value, "time", place), place)


def parse_json(payload: bytes) -> Any:
    """Decode a JSON object or list.

    Raises:
        InvalidInput: not JSON, nested too deep, or a single value; says what came, never the content.
    """
    try:
        document = msgspec.json.decode(payload.removeprefix(_BOM))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error).splitlines()[0].lower()
        raise InvalidInput(f"the payload is no JSON: {reason} ({describe(payload)})") from error
    if not isinstance(document, dict | list):
        raise InvalidInput(f"the payload must be a JSON object or list, it is {kind_of(document)}")
    return document


def typed(value: Any, kind: str, name: str) -> Any:
    """The value as its declared type: numbers as float, arrays as NumPy arrays float64.

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
    if kind == "array" and isinstance(value, list):
        return _array(value, name)
    wanted = {"string": "text", "bool": "true or false", "number": "a number", "array": "a list of numbers"}[kind]
    raise InvalidInput(f"field {name!r} must be {wanted}, it is {kind_of(value)}")


def _array(value: list[Any], name: str) -> Any:
    try:
        array = np.array(value)
        if array.dtype.kind in "iufb":
            return array.astype(np.float64)
        if array.dtype.kind == "O":  # null is a missing value
            return array.astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        pass
    raise InvalidInput(f"field {name!r} must be a list of numbers of one shape, it has something else in it")


def _places(origin: str | list[str] | Origin | None) -> tuple[tuple[Find | Origin, str], ...]:
    if origin is None:
        return ()
    if isinstance(origin, Origin):
        return ((origin, str(origin)),)
    paths = [origin] if isinstance(origin, str) else origin
    return tuple((compile_path(path), path) for path in paths)


def _read(places: tuple[tuple[Find | Origin, str], ...], document: Any, message: Message) -> list[tuple[Any, str]]:
    return [(place.read(message) if isinstance(place, Origin) else place(document), text) for place, text in places]
