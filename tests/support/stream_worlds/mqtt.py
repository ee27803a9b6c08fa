"""Mosquitto."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from inferloop.core import plugins
from inferloop.streams.contexts import SourceContext
from support.broker import Mosquitto
from support.stream_worlds import SourceWorld


@contextlib.asynccontextmanager
async def mqtt_source(folder: Path) -> AsyncIterator[SourceWorld]:
    broker = Mosquitto(folder / "broker")
    source = plugins.load("sources", "mqtt")
    config = source.Config(url=broker.url, topics=["feed/#"], client_id="contract", in_flight=1000)
    broker.subscribe_for("contract", "feed/#")
    try:
        yield SourceWorld(lambda: source(config, SourceContext("p", "feed")), lambda them: broker.publish("feed/1", them))
    finally:
        broker.stop()
