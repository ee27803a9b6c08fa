"""A WebSocket server in a thread with an event loop of its own, which gives each message to whoever is connected."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from inferloop.core import plugins
from inferloop.streams.contexts import SourceContext
from support.stream_worlds import Payloads, SourceWorld


class Feed:
    """Keeps what nobody has taken yet."""

    def __init__(self) -> None:
        self.port = 0
        self._waiting: deque[bytes] = deque()
        self._loop = asyncio.new_event_loop()
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._listens = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    def start(self) -> None:
        self._thread.start()
        assert self._listens.wait(20)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)
        self._loop.close()

    def put(self, payloads: Payloads) -> None:
        self._loop.call_soon_threadsafe(self._take, payloads)

    def _take(self, payloads: Payloads) -> None:
        self._waiting.extend(payloads)
        self._news.set()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self._listens.set()
        await self._over.wait()
        await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        giving = asyncio.create_task(self._give(socket))
        async for _ in socket:
            pass
        giving.cancel()
        await asyncio.gather(giving, return_exceptions=True)
        return socket

    async def _give(self, socket: web.WebSocketResponse) -> None:
        """Text and binary frames by turns."""
        while True:
            while self._waiting:
                payload = self._waiting.popleft()
                await (socket.send_bytes(payload) if len(self._waiting) % 2 else socket.send_str(payload.decode()))
            self._news.clear()
            await self._news.wait()


@contextlib.asynccontextmanager
async def websocket_source(_: Path) -> AsyncIterator[SourceWorld]:
    feed = Feed()
    feed.start()
    source = plugins.load("sources", "websocket")
    config = source.Config(url=f"ws://127.0.0.1:{feed.port}/")
    try:
        yield SourceWorld(lambda: source(config, SourceContext("p", "feed")), feed.put)
    finally:
        feed.stop()
