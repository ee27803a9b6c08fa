"""The lines of standard input, until it ends. Who writes them does not hear what became of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from inferloop.core.errors import InvalidInput, Unsupported
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext

_CHUNK_BYTES = 65_536


class StdinSource(Source):
    """Reads on the event loop when there is something, without a thread that would hang in a read for ever.

    Args:
        file: the descriptor to read; not closed here.
    """

    class Config(BaseModel):
        """What a line may be.

        Attributes:
            max_line: bytes of one line; a longer one ends the source with an error.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        max_line: int = Field(16 * 2**20, ge=1)

    durable = False
    replayable = False
    ordered = True
    caveat = "a line that was read and not done with is gone after a crash; a file can be read with `file`, which resumes"

    def __init__(self, config: Config, context: SourceContext, *, file: int = 0) -> None:
        self._config = config
        self._name = context.name
        self._file = file
        self._rest = bytearray()
        self._ended = False

    async def open(self) -> None:
        """See `Source.open`."""

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        while not self._ended:
            await self._wait_readable()
            messages = self._messages(os.read(self._file, _CHUNK_BYTES))
            if messages:
                return messages
        return ()

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`."""

    async def close(self) -> None:
        """See `Source.close`."""

    async def _wait_readable(self) -> None:
        """Wait for bytes or the end; a regular file, which cannot be watched, always has either."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        try:
            loop.add_reader(self._file, readable.set)
        except PermissionError:
            await asyncio.sleep(0)
            return
        except NotImplementedError as error:
            raise Unsupported(f"source {self._name!r}: standard input cannot be watched on this system") from error
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._file)

    def _messages(self, chunk: bytes) -> list[Message]:
        self._ended = not chunk
        self._rest += chunk
        *lines, rest = bytes(self._rest).split(b"\n")
        if self._ended:
            lines, rest = [*lines, rest], b""
        self._rest = bytearray(rest)
        if max(map(len, (*lines, rest))) > self._config.max_line:
            raise InvalidInput(f"source {self._name!r}: a line is longer than {self._config.max_line} bytes")
        now = time.time()
        return [Message(line.rstrip(b"\r"), self._name, now, topic="stdin") for line in lines if line.strip()]
