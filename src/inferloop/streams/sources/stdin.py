"""Lines of standard input."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext


class StdinSource(Source):
    """Ends with its input. A thread of its own reads, for nothing can interrupt it; it ends with the process.

    Args:
        stream: instead of standard input.
    """

    class Config(BaseModel):
        """How long a line may be.

        Attributes:
            max_line: bytes of one line; a longer one ends the source with an error.
            in_flight: lines that may be read ahead.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        max_line: int = Field(16 * 2**20, ge=1)
        in_flight: int = Field(1024, ge=1)

    durable = False
    replayable = False
    ordered = True

    def __init__(self, config: Config, context: SourceContext, *, stream: BinaryIO | None = None) -> None:
        self._config = config
        self._name = context.name
        self.in_flight = config.in_flight
        self._stream = stream
        self._room = threading.Semaphore(config.in_flight)
        self._arrived: deque[bytes | Exception] = deque()
        self._readable = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def open(self) -> None:
        """See `Source.open`."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._read_lines, name=f"stdin-{self._name}", daemon=True).start()

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        messages: list[Message] = []
        while not messages:
            while not self._arrived:
                self._readable.clear()
                await self._readable.wait()
            while self._arrived and self._arrived[0] != b"" and not isinstance(self._arrived[0], Exception):
                messages += self._message(self._arrived.popleft())
            if not messages and self._arrived:
                if isinstance(self._arrived[0], Exception):
                    raise self._arrived[0]
                return []
        return messages

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`; nobody keeps what was read."""
        for _ in messages:
            self._room.release()

    async def close(self) -> None:
        """See `Source.close`."""
        self._closed = True
        self._room.release()

    def _message(self, line: bytes | Exception) -> list[Message]:
        payload = line.rstrip(b"\r\n") if isinstance(line, bytes) else b""
        if not payload:
            self._room.release()
            return []
        return [Message(payload, self._name, time.time())]

    def _read_lines(self) -> None:
        """Runs on its thread until the input ends."""
        stream = self._stream or sys.stdin.buffer
        most = self._config.max_line
        try:
            while not self._closed:
                self._room.acquire()
                line = stream.readline(most + 1)
                if len(line) > most:
                    raise InvalidInput(f"source {self._name!r}: a line is longer than {most} bytes")
                self._tell(line)
                if not line:
                    return
        except (OSError, ValueError, InvalidInput) as error:
            self._tell(error if isinstance(error, InvalidInput) else Unavailable(f"source {self._name!r}: {error}"))

    def _tell(self, what: bytes | Exception) -> None:
        self._arrived.append(what)
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._readable.set)
        except RuntimeError:  # the loop is closed
            self._closed = True
