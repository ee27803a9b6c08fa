"""Clients that post and try again until they read 200."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from inferloop.core import plugins
from inferloop.streams.contexts import SourceContext
from support.broker import free_port
from support.stream_worlds import Payloads, SourceWorld

CLIENTS = 400


class Posts:
    """Posts in the background; each payload again and again until it is taken."""

    def __init__(self, port: int, *, clients: int = CLIENTS) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.taken: list[bytes] = []
        self.tries = 0
        self._clients = clients
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def put(self, payloads: Payloads) -> None:
        """Begin to post them; returns at once."""
        thread = threading.Thread(target=lambda: asyncio.run(self._post_all(payloads)), name="asyncio_posts")
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        """Give up what was not taken yet."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)

    async def _post_all(self, payloads: Payloads) -> None:
        waiting = iter(payloads)
        connector = aiohttp.TCPConnector(limit=self._clients)
        async with aiohttp.ClientSession(connector=connector) as session:
            posting = [asyncio.create_task(self._post_each(session, waiting)) for _ in range(min(self._clients, len(payloads)))]
            everything = asyncio.gather(*posting)
            while not everything.done() and not self._stopped.is_set():
                await asyncio.wait([everything], timeout=0.05)
            everything.cancel()
            await asyncio.gather(everything, return_exceptions=True)

    async def _post_each(self, session: aiohttp.ClientSession, waiting: object) -> None:
        for payload in waiting:  # type: ignore[attr-defined]
            while True:
                self.tries += 1
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with session.post(self.url, data=payload) as response:
                        if response.status == 200:
                            self.taken.append(payload)
                            break
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def http_source(_: Path) -> AsyncIterator[SourceWorld]:
    port = free_port()
    posts = Posts(port)
    source = plugins.load("sources", "http")
    config = source.Config(port=port, in_flight=1000)
    try:
        yield SourceWorld(lambda: source(config, SourceContext("p", "feed")), posts.put)
    finally:
        posts.stop()


@contextlib.asynccontextmanager
async def stdin_source(_: Path) -> AsyncIterator[SourceWorld]:
    reading, writing = os.pipe()
    stream = os.fdopen(reading, "rb")
    writers: list[threading.Thread] = []

    def put(payloads: Payloads) -> None:
        lines = b"".join(payload + b"\n" for payload in payloads)
        writers.append(threading.Thread(target=lambda: _write_all(writing, lines), name="asyncio_writer"))
        writers[-1].start()

    source = plugins.load("sources", "stdin")
    try:
        yield SourceWorld(lambda: source(source.Config(), SourceContext("p", "feed"), stream=stream), put)
    finally:
        for writer in writers:
            writer.join(30)
        os.close(writing)
        await asyncio.sleep(0.05)
        stream.close()


def _write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
