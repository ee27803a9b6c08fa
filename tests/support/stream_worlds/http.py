"""A web service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext
from support.stream_worlds import SinkWorld


@dataclass
class Hook:
    """An HTTP service that applies each key once."""

    keys: list[str] = field(default_factory=list)
    status: int = 200

    async def handle(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        await request.json()
        if self.status == 200 and key not in self.keys:
            self.keys.append(key)
        return web.Response(status=self.status)

    def fail(self, status: int) -> None:
        self.status = status


@contextlib.asynccontextmanager
async def webhook_sink(_: Path, __: Any) -> AsyncIterator[SinkWorld]:
    hook = Hook()
    app = web.Application()
    app.router.add_post("/", hook.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    sink = plugins.load("sinks", "webhook")
    config = sink.Config(url=f"http://127.0.0.1:{port}/", timeout="60s")
    try:
        yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), lambda: hook.keys, hook.fail)
    finally:
        await runner.cleanup()
