"""A payload that is an encoded image. It is unpacked only by the model's transforms."""

from __future__ import annotations

from collections.abc import Mapping

from inferloop.core.errors import InvalidInput
from inferloop.core.protocols import Codec
from inferloop.core.sample import Message, Sample
from inferloop.data.codecs.content import describe, is_image
from inferloop.data.codecs.envelope import BodyConfig


class ImageCodec(Codec):
    """See `Codec`."""

    class Config(BodyConfig):
        """Options of the codec `image`.

        Attributes:
            field: the name of the Sample's field.
        """

        field: str = "image"

    def __init__(self, config: Config) -> None:
        self._config = config

    def decode(self, message: Message) -> Sample:
        """See `Codec.decode`."""
        if not is_image(message.payload):
            raise InvalidInput(f"the payload is no image: {describe(message.payload)}")
        return self._config.sample(message, self._config.field, message.payload)

    def fields(self) -> Mapping[str, str]:
        """See `Codec.fields`."""
        return {self._config.field: "bytes"}
