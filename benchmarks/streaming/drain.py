"""Take a backlog from a broker, by our pipeline or by the bare loop of its client, and say how long it took.

`python benchmarks/streaming/drain.py ours|bare FOLDER URL COUNT` prints a line when it listens, and one JSON object at the end:
seconds from the first message read to the last one acknowledged, CPU seconds in between, the largest resident size in MB, and
for few messages the delay of each.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import uvloop

from inferloop.core.bundle import MODEL
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.data.journal import Journal
from inferloop.data.ledger.ledger import Ledger
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.streams.contexts import SourceContext
from inferloop.streams.guarantee import make_source
from inferloop.streams.pipeline import Pipeline

BATCH = 64
_PACED = 12_000
"""A run of fewer messages is a paced one: the delay of each is of interest."""
CLIENT = "bench"
TOPIC = "plant/values"


class Watch:
    """From the first message to the last, and from each message's own time to its acknowledgment."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._started = 0.0
        self._cpu = 0.0
        self._late_s: list[float] = []

    def begin(self) -> None:
        """A message came."""
        if not self._started:
            self._started, self._cpu = time.perf_counter(), time.process_time()

    def done(self, payloads: Sequence[bytes]) -> bool:
        """Some were acknowledged; whether all are."""
        now = time.time()
        if self._left < _PACED:  # at full speed nobody asks, and it would cost
            self._late_s += [now - msgspec.json.decode(payload)["at"] for payload in payloads]
        self._left -= len(payloads)
        if self._left > 0:
            return False
        taken = {"seconds": time.perf_counter() - self._started, "cpu_s": time.process_time() - self._cpu}
        late = dict(zip(("p50_ms", "p99_ms"), np.percentile(self._late_s or [0.0], (50, 99)) * 1e3, strict=True))
        print(json.dumps({**taken, **late, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return True


class Watched(Source):
    """A source between two clocks."""

    def __init__(self, source: Source, watch: Watch, stop: asyncio.Event) -> None:
        self.durable, self.replayable, self.ordered = source.durable, source.replayable, source.ordered
        self._source, self._watch, self._stop = source, watch, stop

    async def open(self) -> None:
        """See `Source.open`."""
        await self._source.open()
        print(json.dumps({"open": True}), flush=True)

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        messages = await self._source.read()
        self._watch.begin()
        return messages

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`."""
        await self._source.ack(messages)
        if self._watch.done([message.payload for message in messages]):
            self._stop.set()

    async def close(self) -> None:
        """See `Source.close`."""
        await self._source.close()


async def ours(folder: Path, count: int) -> None:
    """The pipeline file of the folder, with journal and ledger at their defaults."""
    pipeline = Pipeline.load(folder / "plant.yaml")
    stop, watch = asyncio.Event(), Watch(count)
    (part,) = pipeline.spec.sources
    source = Watched(make_source(part, SourceContext(pipeline.name, part.name)), watch, stop)
    with Registry() as registry, Journal(folder / "journal.db") as journal, Ledger(folder / "ledger.db") as ledger:
        async with Router(registry, ledger=ledger) as router:
            await router.open([pipeline.spec.model.ref])
            await pipeline.run(router=router, journal=journal, ledger=ledger, stop=stop, sources={part.name: source})


async def bare(model: Path, url: str, count: int) -> None:
    """Paho with acknowledgments by hand: decode, run in batches, acknowledge; no rules, no record, no sink."""
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    loop, readable, watch = asyncio.get_running_loop(), asyncio.Event(), Watch(count)
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
    print(json.dumps({"open": True}), flush=True)
    done = False
    while not done:
        await readable.wait()
        readable.clear()
        awake.clear()
        while arrived:
            watch.begin()
            batch = [arrived.popleft() for _ in range(min(BATCH, len(arrived)))]
            rows = np.array([msgspec.json.decode(payload)["values"] for payload, _ in batch], np.float32)
            session.run(["logits"], {"x": rows})
            for _, packet in batch:
                client.ack(packet, 1)
            done = watch.done([payload for payload, _ in batch])
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    who, where, address, number = sys.argv[1:]
    uvloop.run(
        ours(Path(where), int(number))
        if who == "ours"
        else bare(next(Path(where).glob(f"bundle/**/{MODEL}")), address, int(number))
    )
