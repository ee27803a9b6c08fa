"""Mosquitto."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext, SourceContext
from support.broker import Mosquitto
from support.stream_worlds import SinkWorld, SourceWorld


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


@contextlib.asynccontextmanager
async def mqtt_sink(folder: Path, _: Any) -> AsyncIterator[SinkWorld]:
    broker = Mosquitto(folder / "broker")
    sink = plugins.load("sinks", "mqtt")
    config = sink.Config(url=broker.url, topic="out/{number}", expires="60s")
    keys: list[str] = []

    def on_message(_client: Any, _data: Any, message: Any) -> None:
        ((name, key),) = message.properties.UserProperty
        number = json.loads(message.payload)["number"]
        assert (name, key, message.topic) == ("idempotency-key", f"k{number}", f"out/{number}")
        assert message.properties.MessageExpiryInterval == 60
        keys.append(key)

    subscribed: list[bool] = []
    listener = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    listener.on_message = on_message
    listener.on_subscribe = lambda *_: subscribed.append(True)
    listener.connect("127.0.0.1", broker.port)
    listener.subscribe("out/#", 1)
    listener.loop_start()
    while not subscribed:
        time.sleep(0.01)

    def effects() -> list[str]:
        deadline = time.monotonic() + 20
        while len(keys) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        return keys

    try:
        yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), effects)
    finally:
        listener.disconnect()
        listener.loop_stop()
        broker.stop()
