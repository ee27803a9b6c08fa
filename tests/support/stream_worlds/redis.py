"""Redis with an append-only file."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import redis

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext, SourceContext
from support.own_server import OwnServer, binary
from support.stream_worlds import Payloads, SinkWorld, SourceWorld


class Redis(OwnServer):
    """One redis-server; the stream is `feed`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._binary = binary("redis-server", install="apt-get install redis-server")
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()

    def command(self) -> Sequence[str]:
        """See `OwnServer`."""
        settings = {"bind": "127.0.0.1", "port": str(self.port), "appendonly": "yes", "appendfsync": "everysec", "save": ""}
        return [self._binary, *(part for name, value in settings.items() for part in (f"--{name}", value))]

    def source(self, **changes: Any) -> dict[str, Any]:
        """The entry of a source in a pipeline file."""
        return {"redis": {"url": self.url, "stream": "feed", **changes}}

    def put(self, payloads: Payloads) -> None:
        """Add all; returns when the server has them."""
        with self.client() as client:
            for start in range(0, len(payloads), 500):
                with client.pipeline(transaction=False) as several:
                    for payload in payloads[start : start + 500]:
                        several.xadd("feed", {"data": payload})
                    several.execute()

    @contextlib.contextmanager
    def client(self) -> Any:
        """A client that waits while the server reads its file."""
        client = redis.Redis(port=self.port)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(redis.exceptions.BusyLoadingError):
                client.ping()
                break
            assert time.monotonic() < deadline
        yield client
        client.close()


@contextlib.asynccontextmanager
async def redis_source(folder: Path) -> AsyncIterator[SourceWorld]:
    server = Redis(folder / "redis")
    source = plugins.load("sources", "redis")
    config = source.Config(url=server.url, stream="feed")
    try:
        yield SourceWorld(lambda: source(config, SourceContext("p", "feed")), server.put)
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def redis_sink(folder: Path, _: Any) -> AsyncIterator[SinkWorld]:
    server = Redis(folder / "redis")
    sink = plugins.load("sinks", "redis")
    config = sink.Config(url=server.url, stream="out")

    def effects() -> list[str]:
        with server.client() as client:
            entries = [fields for _, fields in client.xrange("out")]
        for fields in entries:
            assert fields[b"idempotency-key"].decode() == f"k{json.loads(fields[b'data'])['number']}"
        return [fields[b"idempotency-key"].decode() for fields in entries]

    try:
        yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), effects)
    finally:
        server.stop()
