"""A server that speaks InfluxDB's HTTP interface, reads every line and keeps the points as InfluxDB does: by series and time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext
from support.line_parser import Point, Value, parse_lines
from support.stream_worlds import SinkWorld

Series = tuple[str, tuple[tuple[str, str], ...], int]


class Influx:
    """One bucket, and one database, with a limit on how old a point may be."""

    def __init__(self) -> None:
        self.url = ""
        self.points: dict[Series, dict[str, Value]] = {}
        self.queries: list[dict[str, str]] = []
        self.authorizations: list[str] = []
        self.answers: list[web.Response] = []
        self.requests = 0
        self.oldest = 0

    async def write(self, request: web.Request) -> web.Response:
        self.requests += 1
        self.queries.append(dict(request.query))
        self.authorizations.append(request.headers.get("Authorization", ""))
        if self.answers:
            return self.answers.pop(0)
        try:
            points = parse_lines((await request.read()).decode())
        except ValueError as error:
            return web.json_response({"code": "invalid", "message": f"unable to parse: {error}"}, status=400)
        return self._stored(points)

    async def ping(self, _: web.Request) -> web.Response:
        return web.Response(status=204)

    def _stored(self, points: list[Point]) -> web.Response:
        """What can be kept is kept, as there: a partial write."""
        dropped = [point for point in points if point.timestamp < self.oldest or self._conflicts(point)]
        for point in points:
            if point not in dropped:
                series = (point.measurement, tuple(sorted(point.tags.items())), point.timestamp)
                self.points.setdefault(series, {}).update(point.fields)
        if dropped:
            return web.json_response({"error": f"partial write: dropped={len(dropped)}"}, status=400)
        return web.Response(status=204)

    def _conflicts(self, point: Point) -> bool:
        """Whether a field has another type than where it was seen first."""
        kinds = {name: type(value) for fields in reversed(self.points.values()) for name, value in fields.items()}
        return any(kinds.get(name, type(value)) is not type(value) for name, value in point.fields.items())


@contextlib.asynccontextmanager
async def influx() -> AsyncIterator[Influx]:
    """A started one."""
    server = Influx()
    app = web.Application()
    app.router.add_post("/api/v2/write", server.write)
    app.router.add_post("/write", server.write)
    app.router.add_get("/ping", server.ping)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def influxdb_sink(_: Path, __: Any) -> AsyncIterator[SinkWorld]:
    sink = plugins.load("sinks", "influxdb")
    async with influx() as server:
        options = {"org": "o", "bucket": "b", "token": "t", "measurement": "m", "time": "number"}
        config = sink.Config(url=server.url, point={"number": "=n", "text": "=text"}, **options)

        def effects() -> list[str]:
            assert all(fields == {"text": "ä|'"} for fields in server.points.values())
            return [f"k{at // 10**9}" for _, _, at in server.points]

        yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), effects)
