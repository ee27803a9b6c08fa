"""A backlog at full speed beside the bare loop of the same client, over four kinds of broker; and a paced stream over MQTT."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from harness import tool
from inferloop.registry.registry import Registry
from streaming import stage
from support.broker import Mosquitto, Publisher
from support.stream_worlds.kafka import Kafka
from support.stream_worlds.nats import Nats
from support.stream_worlds.redis import Redis

BACKLOG = 15_000
PACED = 10_000
PER_S = 1000
ROUNDS = 3
_DRAIN = Path(__file__).with_name("drain.py")


@contextmanager
def world() -> Iterator[Path]:
    """A folder with a registered model, which is INFERLOOP_HOME."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        os.environ["INFERLOOP_HOME"] = name
        with Registry() as registry:
            registry.register(stage.model(folder / "bundle"), alias="champion")
        yield folder


class Broker(Protocol):
    """A broker that starts anew with a backlog; yields its address, and the source that reads it."""

    def backlog(self, folder: Path, payloads: list[bytes]) -> AbstractContextManager[tuple[str, dict[str, Any]]]:
        """Publish the payloads where the source will find them."""
        ...


class OverMqtt:
    """Mosquitto with a persistent session that waits."""

    @contextmanager
    def backlog(self, folder: Path, payloads: list[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
        """See `Broker`."""
        broker = Mosquitto(folder)
        broker.subscribe_for(stage.CLIENT, stage.TOPIC)
        broker.publish(stage.TOPIC, payloads)
        try:
            yield broker.url, stage.mqtt(broker.url)
        finally:
            broker.stop()


class Over:
    """One of the brokers that the tests start."""

    def __init__(self, make: Callable[[Path], Nats | Redis | Kafka]) -> None:
        self._make = make

    @contextmanager
    def backlog(self, folder: Path, payloads: list[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
        """See `Broker`."""
        server = self._make(folder)
        server.put(payloads)
        try:
            yield server.url, server.source(in_flight=2048)
        finally:
            server.stop()


BROKERS: dict[str, Broker] = {"mqtt": OverMqtt(), "nats": Over(Nats), "redis": Over(Redis), "kafka": Over(Kafka)}


def rates(kind: str, folder: Path, broker: Broker) -> dict[str, dict[str, float]]:
    """Medians of several rounds, by who drained: `bare`, `ours`, and `quiet` for ours with rules that never match."""
    backlog = stage.messages(BACKLOG)
    found: dict[str, list[dict[str, float]]] = {"bare": [], "ours": [], "quiet": []}
    for number in range(ROUNDS):
        for who, results in found.items():
            with broker.backlog(folder / f"{kind}-{who}-{number}", backlog) as (url, source):
                stage.pipeline(folder, source, acts=who != "quiet")
                results.append(_finish(_begin(kind if who == "bare" else "ours", folder, url, BACKLOG)))
    return {who: {key: median(result[key] for result in results) for key in results[0]} for who, results in found.items()}


def paced(folder: Path, broker: Mosquitto) -> dict[str, float]:
    """Milliseconds from a publisher's clock to the acknowledgment, at a steady rate that is far below the limit."""
    stage.pipeline(folder, stage.mqtt(broker.url), acts=True)
    broker.subscribe_for(stage.CLIENT, stage.TOPIC)
    process = _begin("ours", folder, broker.url, PACED)
    if process.stdout is None or not process.stdout.readline():  # imports and the first connection are not what is measured
        raise RuntimeError("the pipeline did not start")
    publish(broker, PACED)
    return _finish(process)


def drain_s(folder: Path, broker: Mosquitto) -> float:
    """From SIGTERM in the middle of a stream to the end of `inferloop run`."""
    stage.pipeline(folder, stage.mqtt(broker.url), acts=True)
    broker.subscribe_for(stage.CLIENT, stage.TOPIC)
    command = [tool("inferloop"), "run", str(folder / "plant.yaml"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    time.sleep(3)
    publish(broker, 2 * PER_S)
    started = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    taken = time.perf_counter() - started
    if not json.loads(said)["messages"]:
        raise RuntimeError("the stream had not begun")
    return taken


def publish(broker: Mosquitto, count: int) -> None:
    """Messages at the steady rate, each with the time at which it leaves."""
    payloads = [json.loads(payload) for payload in stage.messages(count)]
    publisher = Publisher(broker.port)
    started = time.perf_counter()
    for number, payload in enumerate(payloads):
        wait_s = started + number / PER_S - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)
        publisher.send(stage.TOPIC, json.dumps({**payload, "id": f"p{number}", "at": time.time()}).encode())
    publisher.finish()  # paho would leave with what it has not sent yet
    publisher.close()


def _begin(who: str, folder: Path, url: str, count: int) -> subprocess.Popen[str]:
    for old in folder.glob("*.db*"):
        if old.name.startswith(("journal", "ledger")):
            old.unlink()
    command: list[Any] = [sys.executable, _DRAIN, who, folder, url, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> dict[str, float]:
    said, _ = process.communicate(timeout=300)
    result: dict[str, float] = json.loads(said.splitlines()[-1])
    return result
