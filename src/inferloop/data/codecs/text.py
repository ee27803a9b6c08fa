"""A payload that is text."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import pydantic

from inferloop.core.errors import InvalidInput
from inferloop.core.protocols import Codec
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.content import describe
from inferloop.data.codecs.envelope import BodyConfig


def checked_encoding(name: str) -> str:
    """The name, or `ValueError` if Python knows no such text encoding."""
    with suppress(UnicodeError):  # a letter is no text in UTF-16, say; nothing at all would be text in any codec
        try:
            b"a".decode(name)
        except LookupError as error:
            raise ValueError(f"no text encoding named {name!r}, e.g. utf-8 or latin-1") from error
    return name


class TextCodec(Codec):
    """See `Codec`."""

    class Config(BodyConfig):
        """Options of the codec `text`.

        Attributes:
            field: the name of the Sample's field.
            encoding: e.g. `utf-8` or `latin-1`.
        """

        field: str = "text"
        encoding: str = "utf-8"

        _known_encoding = pydantic.field_validator("encoding")(checked_encoding)

    def __init__(self, config: Config) -> None:
        self._config = config

    def decode(self, message: Message) -> Sample:
        """See `Codec.decode`."""
        return self._config.sample(message, self._config.field, decode_text(message.payload, self._config.encoding))

    def fields(self) -> Mapping[str, str]:
        """See `Codec.fields`."""
        return {self._config.field: "string"}


def decode_text(payload: bytes, encoding: str = "utf-8") -> str:
    """Decode bytes; a byte order mark is dropped.

    Raises:
        InvalidInput: not of this encoding; says at which byte.
    """
    try:
        return payload.decode(encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        place = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        hint = "if it is text, name its encoding, e.g. latin-1"
        raise InvalidInput(f"the payload is not {encoding}{place} ({describe(payload)})", hint=hint) from error
