"""The uplink is down for a while and the outbox keeps what it would have got: is all there, in order, and how fast?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from harness import tool
from streaming import rates, stage
from support.broker import Mosquitto, Publisher
from support.stream_worlds.nats import STREAM, Nats

PER_S = 500
LIVE_S = 5.0


def measured(outage_s: float = 60.0) -> dict[str, float]:
    """Messages a second while the outbox drains over those that come live meanwhile; what was lost, doubled or out of order."""
    with rates.world() as folder:
        feed, uplink = Mosquitto(folder / "feed"), Nats(folder / "uplink")
        feed.subscribe_for(stage.CLIENT, stage.TOPIC)
        command = [tool("inferloop"), "run", str(_pipeline(folder, feed.url, uplink.url)), "--json"]
        with (folder / "run.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        live = _Live(feed)
        try:
            live.start()
            time.sleep(LIVE_S)
            uplink.kill()
            time.sleep(outage_s)
            waiting, before = _waiting(folder), live.published
            uplink.start()
            started = time.perf_counter()
            while _waiting(folder) > PER_S // 10:
                time.sleep(0.01)
            drained_s = time.perf_counter() - started
            came = live.published - before
            live.stop()
            while _waiting(folder) or _stored(uplink) < live.published:
                time.sleep(0.05)
        finally:
            process.terminate()
            process.communicate(timeout=60)
            found = _found(uplink)
            feed.stop()
            uplink.stop()
    if waiting < PER_S:
        raise RuntimeError(f"only {waiting} deliveries waited in the outbox: the outage did not hit")
    return {
        "drain_x": (waiting + came) / drained_s / PER_S,
        "waited": waiting,
        "lost": live.published - len({message["id"] for message in found}),
        "double": len(found) - len({message["id"] for message in found}),
        "out_of_order": _out_of_order(found),
    }


class _Live(threading.Thread):
    """Publishes at a steady rate until it is told to stop."""

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__()
        self._publisher = Publisher(broker.port)
        self._on = True
        self.published = 0

    def run(self) -> None:
        """See `Thread.run`."""
        payloads = [json.loads(payload) for payload in stage.messages(1000)]
        started = time.perf_counter()
        while self._on:
            time.sleep(max(0.0, started + self.published / PER_S - time.perf_counter()))
            content = {**payloads[self.published % 1000], "id": f"m{self.published}", "at": time.time()}
            self._publisher.send(stage.TOPIC, json.dumps(content).encode())
            self.published += 1

    def stop(self) -> None:
        """Publish no more."""
        self._on = False
        self.join()
        self._publisher.close()


def _pipeline(folder: Path, feed: str, uplink: str) -> Path:
    path = stage.pipeline(folder, stage.mqtt(feed), acts=True)
    content = yaml.safe_load(path.read_text())
    content["rules"] = [{"name": "all", "send": ["out"]}]
    content["sinks"] = {"out": {"nats": {"url": uplink, "subject": "feed.out", "json": {"id": "=id", "device": "=key"}}}}
    content["outbox"] = {"sqlite": {"path": str(folder / "outbox.db")}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def _waiting(folder: Path) -> int:
    if not (folder / "outbox.db").exists():
        return 0
    with contextlib.closing(sqlite3.connect(folder / "outbox.db", timeout=30)) as database:
        return int(database.execute("SELECT count(*) FROM parcels").fetchone()[0])


def _stored(uplink: Nats) -> int:
    async def messages(js: Any) -> int:
        return int((await js.stream_info(STREAM)).state.messages)

    count: int = uplink.ask(messages)
    return count


def _found(uplink: Nats) -> list[dict[str, str]]:
    async def read(js: Any) -> list[dict[str, str]]:
        consumer = await js.pull_subscribe("feed.out", durable="look", stream=STREAM)
        found: list[dict[str, str]] = []
        with contextlib.suppress(asyncio.TimeoutError):
            while True:
                messages = await consumer.fetch(1000, timeout=2)
                found += [json.loads(message.data) for message in messages]
                await asyncio.gather(*(message.ack() for message in messages))
        return found

    everything: list[dict[str, str]] = uplink.ask(read)
    return everything


def _out_of_order(found: list[dict[str, str]]) -> int:
    last: dict[str, int] = defaultdict(lambda: -1)
    wrong = 0
    for message in found:
        number = int(message["id"][1:])
        wrong += number < last[message["device"]]
        last[message["device"]] = number
    return wrong
