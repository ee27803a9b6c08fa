"""A document of named values to a Sample: what JSON, CBOR and MessagePack share. Only the parser differs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import pydantic

from inferloop.core.errors import InvalidConfig, InvalidInput
from inferloop.core.protocols import Codec
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.envelope import FROZEN, Origin, identity, kind_of, present, time_s
from inferloop.data.codecs.field import FieldOptions, beside, settled
from inferloop.data.codecs.json_path import Find, compile_path


def _checked_path(path: str) -> str:
    try:
        compile_path(path)
    except InvalidConfig as error:
        raise ValueError(error.message) from error
    return path


Path = Annotated[str, pydantic.AfterValidator(_checked_path)]
Paths = Annotated[list[Path], pydantic.Field(min_length=1)]


class FieldConfig(FieldOptions):
    """One field: where it is, what it must be, and what stands for it where it is missing.

    Attributes:
        path: where it is in the payload; else it is in a header or a level of the topic.
        header: the header that holds it, as text.
        topic: the level of the topic that holds it, counted from 0 (-1 is the last).
        type: `bytes` takes base64 where the payload is JSON; `any` takes what comes.
        default: what stands for it where it is missing.
        required: a message without it is refused; otherwise the Sample lacks the field.
    """

    place: ClassVar[str] = "path"

    path: Path | None = None


class _Field(NamedTuple):
    name: str
    find: Find
    config: FieldConfig
    origin: Origin | None


class DocumentCodec(Codec):
    """See `Codec`. `null` counts as missing. A subclass brings the parser."""

    class Config(pydantic.BaseModel):
        """Options of the codecs `json`, `cbor` and `msgpack`.

        Attributes:
            id: the path of the message's identity; a list of paths joins their values.
            key: what state and order belong to.
            time: event time: ISO 8601, or seconds or milliseconds since the epoch.
            fields: values by name, each a path or a mapping with path, header or topic, and type, required and default.
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
        self._fields = tuple(_field(name, field) for name, field in config.fields.items())

    @abstractmethod
    def parse(self, payload: bytes) -> Any:
        """The document as JSON would have it, or with `bytes` in it.

        Raises:
            InvalidInput: it is no document of this form; says what came, never the content.
        """

    def decode(self, message: Message) -> Sample:
        """See `Codec.decode`."""
        document = self.parse(message.payload)
        return Sample(
            fields=self._values(document, message),
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

    def _values(self, document: Any, message: Message) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, find, config, origin in self._fields:
            found = find(document) if origin is None else beside(origin, message, config, name)
            value = settled(found, config, name, origin or config.path)
            if value is not None:
                values[name] = value
        return values

    def _moment(self, document: Any, message: Message) -> float | None:
        if not self._time:
            return None
        value, place = _read(self._time, document, message)[0]
        return time_s(present(value, "time", place), place)


def document(value: Any, form: str) -> Any:
    """The value if it can hold others by name or number.

    Raises:
        InvalidInput: it is a single value; `form` says of what format.
    """
    if not isinstance(value, dict | list):
        raise InvalidInput(f"the payload must be a {form} object or list, it is {kind_of(value)}")
    return value


def _field(name: str, field: str | FieldConfig) -> _Field:
    config = field if isinstance(field, FieldConfig) else FieldConfig(path=field)
    return _Field(name, compile_path(config.path or "$"), config, config.origin)


def _places(origin: str | list[str] | Origin | None) -> tuple[tuple[Find | Origin, str], ...]:
    if origin is None:
        return ()
    if isinstance(origin, Origin):
        return ((origin, str(origin)),)
    paths = [origin] if isinstance(origin, str) else origin
    return tuple((compile_path(path), path) for path in paths)


def _read(places: tuple[tuple[Find | Origin, str], ...], document: Any, message: Message) -> list[tuple[Any, str]]:
    return [(place.read(message) if isinstance(place, Origin) else place(document), text) for place, text in places]
