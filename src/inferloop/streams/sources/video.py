"""The frames of a video file, resumable, as fast as possible or with the gaps of the recording.

A position is the number of a frame and a fingerprint of the file, `NUMBER:FINGERPRINT`: another file is read from its start.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from inferloop.core.errors import InvalidInput, NotFound
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext
from inferloop.streams.sources.capture import Capture, Encoding, Frame
from inferloop.streams.sources.pulled import PulledSource

log = logging.getLogger(__name__)

_AT_ONCE = 8
_FINGERPRINT_BYTES = 1 << 20


class VideoSource(PulledSource):
    """Each frame is a message whose payload is an image; ends with the file."""

    class Config(BaseModel):
        """The file, and which of its frames when.

        Attributes:
            path: any format that OpenCV reads: MP4, AVI, MKV, ...
            every: one of so many frames is a message, beginning with the first.
            speed: frames come with the gaps of the recording, divided by this; as fast as possible when it is left out.
            encoding: of the payload: `bmp` keeps every pixel and is fastest, `jpeg` is small.
            in_flight: frames that may be under way.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: Path
        every: int = Field(1, ge=1)
        speed: float | None = Field(None, gt=0)
        encoding: Encoding = "bmp"
        in_flight: int = Field(64, ge=1, le=4096)

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__(context.name, f"file://{config.path}", in_flight=config.in_flight)
        self._config = config
        self._context = context
        self._capture: Capture | None = None
        self._fingerprint = ""
        self._began: tuple[float, float] | None = None
        """When the first frame was given, and its place in the recording."""

    async def _connect(self) -> None:
        path, part = self._config.path, f"source {self._name!r}"
        try:
            self._fingerprint = await asyncio.to_thread(_fingerprint, path)
        except OSError as error:
            raise NotFound(f"{part}: no file {path}: {error.strerror}") from error
        self._capture = Capture(self._name)
        if not await self._capture.open(str(path)):
            raise InvalidInput(f"{part}: OpenCV cannot read {path} as a video")
        number, _, fingerprint = self._context.resume.partition(":")
        if fingerprint == self._fingerprint:
            await self._capture.skip(int(number) + 1)
        elif self._context.resume:
            log.warning("file was replaced, reading it anew", extra={"source": self._name})

    async def _fetch(self, most: int) -> Sequence[Message]:
        if self._capture is None:
            raise AssertionError("fetched before it was connected")
        wanted = 1 if self._config.speed is not None else min(most, _AT_ONCE)
        frames = await self._capture.take(wanted, every=self._config.every, encoding=self._config.encoding)
        self._ended = len(frames) < wanted
        if frames and self._config.speed is not None:
            await self._wait_for(frames[0], self._config.speed)
        now = time.time()
        return [self._message(frame, now) for frame in frames]

    async def _wait_for(self, frame: Frame, speed: float) -> None:
        if self._began is None:
            self._began = time.monotonic(), frame.at_s
        began, first_s = self._began
        await asyncio.sleep(began + (frame.at_s - first_s) / speed - time.monotonic())

    def _message(self, frame: Frame, now: float) -> Message:
        position = f"{frame.number}:{self._fingerprint}"
        headers = {"frame": str(frame.number), "at": f"{frame.at_s:.3f}"}
        topic = self._config.path.name
        return Message(frame.payload, self._name, now, topic=topic, position=position, headers=headers, token=frame.number)

    async def _confirm(self, messages: Sequence[Message]) -> None:
        if messages:
            self._context.remember(messages[-1].position)

    async def _disconnect(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            await capture.close()


def _fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.stat().st_size:x}-{zlib.crc32(file.read(_FINGERPRINT_BYTES)):08x}"
