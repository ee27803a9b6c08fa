"""A payload that is taken as it is."""

from __future__ import annotations

from collections.abc import Mapping

from inferloop.core.protocols import Codec
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.envelope import BodyConfig


class BytesCodec(Codec):
    """See `Codec`."""

    class Config(BodyConfig):
        """Options of the codec `bytes`.

        Attributes:
            field: the name of the Sample's field.
        """

        field: str = "bytes"

    def __init__(self, config: Config) -> None:
        self._config = config

    def decode(self, message: Message) -> Sample:
        """See `Codec.decode`."""
        return self._config.sample(message, self._config.field, message.payload)

    def fields(self) -> Mapping[str, str]:
        """See `Codec.fields`."""
        return {self._config.field: "bytes"}
