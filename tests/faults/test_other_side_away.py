"""A broker or database that is not there is told at once, waited for, and given up cleanly when the pipeline stops."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext, SourceContext
from support.broker import free_port

SOURCES: dict[str, dict[str, Any]] = {
    "mqtt": {"url": "mqtt://u:geheim@127.0.0.1:{port}", "topics": ["t"]},
    "nats": {"url": "nats://u:geheim@127.0.0.1:{port}", "subject": "s"},
    "redis": {"url": "redis://u:geheim@127.0.0.1:{port}", "stream": "s"},
    "rabbitmq": {"url": "amqp://u:geheim@127.0.0.1:{port}", "queue": "q"},
    "kafka": {"brokers": "127.0.0.1:{port}", "topics": ["t"]},
    "websocket": {"url": "ws://u:geheim@127.0.0.1:{port}/feed?token=geheim"},
}
SINKS: dict[str, dict[str, Any]] = {
    "mqtt": {"url": "mqtt://u:geheim@127.0.0.1:{port}", "topic": "t"},
    "nats": {"url": "nats://u:geheim@127.0.0.1:{port}", "subject": "s"},
    "redis": {"url": "redis://u:geheim@127.0.0.1:{port}", "stream": "s"},
    "rabbitmq": {"url": "amqp://u:geheim@127.0.0.1:{port}", "routing_key": "q"},
    "kafka": {"brokers": "127.0.0.1:{port}", "topic": "t"},
    "smtp": {"url": "smtp://127.0.0.1:{port}", "from": "a@b.c", "to": "d@e.f", "user": "u", "password": "geheim"},
    "influxdb": {
        "url": "http://127.0.0.1:{port}",
        "database": "d",
        "token": "geheim",
        "measurement": "m",
        "point": {"at": "=time", "score": "=score"},
        "time": "at",
    },
    "postgres": {"url": "postgresql://u:geheim@127.0.0.1:{port}/d", "table": "t"},
}


def nowhere(config: dict[str, Any]) -> dict[str, Any]:
    port = str(free_port())
    return {name: value.replace("{port}", port) if isinstance(value, str) else value for name, value in config.items()}


async def told(part: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Open it, wait for the line in the log, stop; no password is anywhere."""
    opening = asyncio.create_task(part.open())
    async with asyncio.timeout(20):
        while not any("not there" in record.message for record in caplog.records):
            assert not opening.done(), opening
            await asyncio.sleep(0.02)
    opening.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(opening, return_exceptions=True)
        await part.close()
    assert opening.cancelled()
    assert "geheim" not in str([record.__dict__ for record in caplog.records if record.name.startswith("inferloop")])


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_source_says_that_its_broker_is_away(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    source = plugins.load("sources", kind)
    await told(source(source.Config(**nowhere(SOURCES[kind])), SourceContext("p", "feed")), caplog)


@pytest.mark.parametrize("kind", SINKS)
async def test_a_sink_says_that_its_other_side_is_away(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    sink = plugins.load("sinks", kind)
    await told(sink(sink.Config(**nowhere(SINKS[kind])), SinkContext("p", "act")), caplog)
