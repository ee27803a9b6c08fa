"""The bare loop of each client: take, decode, run in batches, acknowledge; no rules, no record, no sink."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
from watch import Watch

BATCH = 64
CLIENT = "bench"
TOPIC = "plant/values"
_FETCH = 512


class Model:
    """One session on one thread; the rows are the numbers of each message."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def score(self, payloads: Sequence[bytes]) -> None:
        """Decode and run, 64 rows at a time."""
        for start in range(0, len(payloads), BATCH):
            rows = np.array([msgspec.json.decode(payload)["values"] for payload in payloads[start : start + BATCH]], np.float32)
            self._session.run(["logits"], {"x": rows})


def _listening() -> None:
    print(json.dumps({"open": True}), flush=True)


async def mqtt(path: Path, url: str, watch: Watch) -> None:
    """Paho with acknowledgments by hand."""
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    model, loop, readable = Model(path), asyncio.get_running_loop(), asyncio.Event()
    arrived: deque[tuple[bytes, int]] = deque()
    awake = threading.Event()

    def on_message(_: object, __: object, packet: paho.MQTTMessage) -> None:
        arrived.append((packet.payload, packet.mid))
        if not awake.is_set():
            awake.set()
            loop.call_soon_threadsafe(readable.set)

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=CLIENT, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe(TOPIC, 1)
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 0xFFFFFFFF
    properties.ReceiveMaximum = 2048
    host, port = url.removeprefix("mqtt://").split(":")
    client.connect(host, int(port), clean_start=False, properties=properties)
    client.loop_start()
    _listening()
    done = False
    while not done:
        await readable.wait()
        readable.clear()
        awake.clear()
        while arrived:
            watch.begin()
            batch = [arrived.popleft() for _ in range(min(BATCH, len(arrived)))]
            model.score([payload for payload, _ in batch])
            for _, packet in batch:
                client.ack(packet, 1)
            done = watch.done([payload for payload, _ in batch])
    client.disconnect()
    client.loop_stop()


async def nats(path: Path, url: str, watch: Watch) -> None:
    """nats-py, a durable pull consumer."""
    import nats as library

    model = Model(path)
    client = await library.connect(url)
    consumer = await client.jetstream().pull_subscribe("feed.>", durable=CLIENT)
    _listening()
    done = False
    while not done:
        messages = await consumer.fetch(_FETCH, timeout=5)
        watch.begin()
        model.score([message.data for message in messages])
        for message in messages:
            await message.ack()
        done = watch.done([message.data for message in messages])
    await client.close()


async def redis(path: Path, url: str, watch: Watch) -> None:
    """redis-py, a consumer group."""
    import redis.asyncio as library

    model = Model(path)
    client = library.Redis.from_url(url)
    await client.xgroup_create("feed", CLIENT, id="0", mkstream=True)
    _listening()
    done = False
    while not done:
        ((_, entries),) = await client.xreadgroup(CLIENT, "one", {"feed": ">"}, count=_FETCH, block=5000)
        watch.begin()
        payloads = [fields[b"data"] for _, fields in entries]
        model.score(payloads)
        await client.xack("feed", CLIENT, *(id_ for id_, _ in entries))
        done = watch.done(payloads)
    await client.aclose()


async def kafka(path: Path, url: str, watch: Watch) -> None:
    """confluent-kafka, a consumer group of one."""
    from confluent_kafka import Consumer

    model = Model(path)
    settings = {"bootstrap.servers": url, "group.id": CLIENT, "auto.offset.reset": "earliest", "session.timeout.ms": 6000}
    consumer = Consumer({**settings, "enable.auto.commit": False})
    consumer.subscribe(["feed"])
    _listening()
    done = False
    while not done:
        records = consumer.consume(_FETCH, 0.2)
        if records:
            watch.begin()
            payloads = [record.value() for record in records]
            model.score(payloads)
            consumer.commit(records[-1], asynchronous=True)
            done = watch.done(payloads)
    consumer.close()


BARE: dict[str, Callable[[Path, str, Watch], Awaitable[None]]] = {"mqtt": mqtt, "nats": nats, "redis": redis, "kafka": kafka}
