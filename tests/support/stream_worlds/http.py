"""A web service, and clients that post until they are told that it is done."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext, SourceContext
from support.broker import free_port
from support.stream_worlds import Payloads, SinkWorld, SourceWorld

_LINES_A_BODY = 1000


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


@contextlib.asynccontextmanager
async def http_source(_: Path) -> AsyncIterator[SourceWorld]:
    port = free_port()
    over = threading.Event()
    clients: list[threading.Thread] = []
    source = plugins.load("sources", "http")
    config = source.Config(port=port, split="lines", wait="60s")

    def put(payloads: Payloads) -> None:
        clients.append(threading.Thread(target=_post_all, args=(port, payloads, over)))
        clients[-1].start()

    try:
        yield SourceWorld(lambda: source(config, SourceContext("p", "feed")), put)
    finally:
        over.set()
        for client in clients:
            client.join(90)


def _post_all(port: int, payloads: Payloads, over: threading.Event) -> None:
    """One body after the other; what an answer does not call acknowledged is sent again."""
    left = payloads
    while left and not over.is_set():
        lines = left[:_LINES_A_BODY]
        left = left[_posted(port, b"\n".join(lines)) :]
        if len(left) and not over.is_set():
            time.sleep(0.001)


def _posted(port: int, body: bytes) -> int:
    """How many of its lines are done."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/", body)
        return int(json.loads(connection.getresponse().read())["acknowledged"])
    except (OSError, http.client.HTTPException, KeyError):
        time.sleep(0.02)
        return 0
    finally:
        connection.close()
