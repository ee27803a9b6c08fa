"""Video files whose frames stand for the payloads of the contract."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from inferloop.core import plugins
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext
from support import pictures
from support.stream_worlds import Payloads, SourceWorld


class Told(Source):
    """The source, its frames as the JSON that they stand for."""

    def __init__(self, source: Source) -> None:
        self.durable, self.replayable, self.ordered = source.durable, source.replayable, source.ordered
        self._source = source

    async def open(self) -> None:
        await self._source.open()

    async def read(self) -> Sequence[Message]:
        messages = await self._source.read()
        said = [json.dumps({"number": pictures.number(message.payload)}).encode() for message in messages]
        return [msgspec.structs.replace(message, payload=payload) for message, payload in zip(messages, said, strict=True)]

    async def ack(self, messages: Sequence[Message]) -> None:
        await self._source.ack(messages)

    async def close(self) -> None:
        await self._source.close()


@contextlib.asynccontextmanager
async def video_source(folder: Path) -> AsyncIterator[SourceWorld]:
    remembered: list[str] = [""]
    source = plugins.load("sources", "video")
    config = source.Config(path=folder / "feed.avi", in_flight=1024)

    def remember(position: str) -> None:
        remembered[0] = position

    def put(payloads: Payloads) -> None:
        pictures.video(folder / "feed.avi", [json.loads(payload)["number"] for payload in payloads])

    yield SourceWorld(lambda: Told(source(config, SourceContext("p", "feed", remembered[0], remember))), put, grows=False)
