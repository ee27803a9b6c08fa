"""A server of ours with a model of texts, and before it a gateway that notes whose request was answered."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext
from support.bundles import text
from support.serving import Running, serving
from support.stream_worlds import SinkWorld


class Gateway:
    """Passes records on, without the number that the model does not take."""

    def __init__(self, server: Running) -> None:
        self.keys: list[str] = []
        self._server = server

    async def handle(self, request: web.Request) -> web.Response:
        record = await request.json()
        assert request.headers["Idempotency-Key"] == f"k{record.pop('number')}"
        reply = await self._server.infer("text", record, content_type="application/json")
        if reply.status == 200:
            self.keys.append(request.headers["Idempotency-Key"])
        return web.Response(status=reply.status, body=reply.body)


@contextlib.asynccontextmanager
async def model_sink(folder: Path, _: Any) -> AsyncIterator[SinkWorld]:
    sink = plugins.load("sinks", "model")
    async with serving(folder, text(folder / "bundle")) as server:
        gateway = Gateway(server)
        app = web.Application()
        app.router.add_post("/v2/models/text/infer", gateway.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        config = sink.Config(server=url, model="text", json={"text": "=text", "number": "=n"})
        try:
            yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), lambda: gateway.keys)
        finally:
            await runner.cleanup()
