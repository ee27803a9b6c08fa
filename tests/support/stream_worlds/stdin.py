"""A pipe in the place of standard input."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from inferloop.streams.contexts import SourceContext
from inferloop.streams.sources.stdin import StdinSource
from support.stream_worlds import Payloads, SourceWorld


@contextlib.asynccontextmanager
async def stdin_source(_: Path) -> AsyncIterator[SourceWorld]:
    reading, writing = os.pipe()
    writers: list[threading.Thread] = []

    def put(payloads: Payloads) -> None:
        """From a thread: a pipe holds 64 KiB, and the rest waits for a reader."""
        content = b"".join(payload + b"\n" for payload in payloads)

        def write() -> None:
            left = memoryview(content)
            while left:
                left = left[os.write(writing, left) :]

        writers.append(threading.Thread(target=write))
        writers[-1].start()

    try:
        yield SourceWorld(lambda: StdinSource(StdinSource.Config(), SourceContext("p", "feed"), file=reading), put)
    finally:
        for writer in writers:
            writer.join(20)
        os.close(reading)
        os.close(writing)
