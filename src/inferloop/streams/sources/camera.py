"""Frames of a camera: a device of this machine, or a stream over RTSP or HTTP."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from inferloop.core.errors import Unavailable
from inferloop.core.sample import Message
from inferloop.streams.addresses import checked_url
from inferloop.streams.contexts import SourceContext
from inferloop.streams.delivery.reaching import without_secrets
from inferloop.streams.sources.capture import Capture, Encoding
from inferloop.streams.sources.pulled import PulledSource


class CameraSource(PulledSource):
    """Each frame is a message whose payload is an image; connects again for ever."""

    class Config(BaseModel):
        """Which camera, and how its frames are handed on.

        Attributes:
            url: `rtsp://HOST/PATH`, or `http://` for a stream of JPEGs; may hold user and password.
            device: the number of a camera of this machine, instead of `url`.
            encoding: of the payload: `bmp` keeps every pixel and is fastest, `jpeg` is small.
            in_flight: frames that may be under way; from there on none is taken, and the camera's own buffer grows old. With
                `when_full: drop_oldest` beside it the newest frames are what the model sees.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        url: str | None = Field(None, repr=False)
        device: int | None = Field(None, ge=0)
        encoding: Encoding = "bmp"
        in_flight: int = Field(16, ge=1, le=4096)

        @field_validator("url")
        @classmethod
        def _address(cls, value: str | None) -> str | None:
            return value if value is None else checked_url(value, "rtsp", "rtsps", "http", "https")

        @model_validator(mode="after")
        def _one(self) -> Self:
            if (self.url is None) == (self.device is None):
                raise ValueError("must have either `url` or `device`")
            return self

    durable = False
    live = True
    replayable = False
    ordered = True
    caveat = "frames that the camera shows while we are away or slower than it are gone, or come late out of its buffer"

    def __init__(self, config: Config, context: SourceContext) -> None:
        self._place = without_secrets(config.url) if config.url is not None else f"device/{config.device}"
        super().__init__(context.name, config.url or self._place, in_flight=config.in_flight)
        self._config = config
        self._capture: Capture | None = None
        self._count = 0

    async def _connect(self) -> None:
        await self._disconnect()
        self._capture = Capture(self._name)
        address = self._config.url if self._config.url is not None else self._config.device or 0
        if not await self._capture.open(address):
            raise Unavailable(f"source {self._name!r}: OpenCV cannot open {self._place}")

    async def _fetch(self, most: int) -> Sequence[Message]:  # noqa: ARG002  # frames come one by one
        if self._capture is None:
            raise Unavailable(f"source {self._name!r}: not connected")
        frames = await self._capture.take(1, every=1, encoding=self._config.encoding)
        if not frames:
            raise Unavailable(f"source {self._name!r}: {self._place} gives no more frames")
        self._count += 1
        headers = {"frame": str(frames[0].number)}
        return [Message(frames[0].payload, self._name, time.time(), topic=self._place, headers=headers, token=self._count)]

    async def _confirm(self, messages: Sequence[Message]) -> None:
        """Nobody is told; there is room for others."""

    async def _disconnect(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            await capture.close()
