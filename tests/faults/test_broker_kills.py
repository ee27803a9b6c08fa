"""Pipelines over brokers that keep their word: consumer and broker are killed in mid-stream, nothing is lost or done twice."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.pipelines import HOT, content, message, numbers_registry, save
from support.runs import Run, decided, wait_until
from support.stream_worlds.kafka import Kafka
from support.stream_worlds.nats import Nats
from support.stream_worlds.rabbitmq import RabbitMq
from support.stream_worlds.redis import Redis

Broker = Nats | Redis | Kafka | RabbitMq
BROKERS: dict[str, Callable[[Path], Broker]] = {"nats": Nats, "redis": Redis, "kafka": Kafka, "rabbitmq": RabbitMq}
MESSAGES = 4000
KILLS = 3
IN_FLIGHT = 256


DURABLE = pytest.mark.parametrize("broker", ["nats", "redis", "rabbitmq"], indirect=True)
"""Those that keep what they confirmed when they are killed, and wait for signs of life; the Kafka of these tests does neither."""


@pytest.fixture(params=list(BROKERS))
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    broker = BROKERS[request.param](tmp_path / "broker")
    yield broker
    broker.stop()


def pipeline_file(folder: Path, source: dict[str, Any], **model: Any) -> Path:
    table = {"path": str(folder / "acts.db"), "table": "acts", "row": {"id": "=id"}}
    sections = content(
        sources={"feed": source},
        model={"ref": "numbers@champion", "batch": {"max": 32}, **model},
        sinks={"act": {"sqlite": table}, "log": {"file": {"path": str(folder / "log.jsonl"), "json": {"id": "=id"}}}},
        rules=[{"name": "act", "label": "hot", "above": 0.5, "send": ["act", "log"]}],
    )
    return save(folder / "demo.yaml", sections)


def acted(folder: Path) -> list[str]:
    """Ids in the table, in the order in which they came there."""
    if not (folder / "acts.db").exists():
        return []
    with (
        contextlib.closing(sqlite3.connect(folder / "acts.db", timeout=30)) as database,
        contextlib.suppress(sqlite3.OperationalError),
    ):
        return [id_ for (id_,) in database.execute("SELECT id FROM acts ORDER BY rowid")]
    return []


def logged(folder: Path) -> Counter[str]:
    """Ids in the file, which drops no repetition."""
    return Counter(json.loads(line)["id"] for line in (folder / "log.jsonl").read_text().splitlines() if line.endswith("}"))


def ids(count: int) -> list[str]:
    return [f"m{number}" for number in range(count)]


def ended(run: Run) -> dict[str, Any]:
    run.terminate()
    return run.end()


def test_kills_of_the_consumer_lose_nothing_and_act_once(tmp_path: Path, home: Path, broker: Broker) -> None:
    file = pipeline_file(tmp_path, broker.source(in_flight=IN_FLIGHT))
    broker.put([message(number) for number in range(MESSAGES)])
    before = 0
    for _ in range(2 if isinstance(broker, Kafka) else KILLS):  # a group takes long to notice that somebody died
        run = Run(file)
        wait_until(lambda seen=before: len(acted(tmp_path)) > seen + 300, run)
        run.kill()
        before = len(acted(tmp_path))
        assert 0 < before < MESSAGES, "the kill came too late"
    run = Run(file)
    wait_until(lambda: len(acted(tmp_path)) == MESSAGES, run)
    ended(run)
    assert sorted(acted(tmp_path)) == sorted(ids(MESSAGES))
    assert max(Counter(id_ for id_, _, _ in decided(home)).values()) == 1
    assert len(decided(home)) == MESSAGES
    again = sum(count - 1 for count in logged(tmp_path).values())
    assert set(logged(tmp_path)) == set(ids(MESSAGES))
    assert again <= KILLS * IN_FLIGHT


@DURABLE
def test_a_broker_that_is_killed_and_comes_back_loses_nothing_of_what_it_confirmed(
    tmp_path: Path, home: Path, broker: Broker
) -> None:
    file = pipeline_file(tmp_path, broker.source(in_flight=IN_FLIGHT))
    broker.put([message(number) for number in range(MESSAGES)])
    time.sleep(1.2)  # longer than Redis takes to force its file to disk
    run = Run(file)
    for number in range(2):
        seen = len(acted(tmp_path))
        wait_until(lambda least=seen + 300: len(acted(tmp_path)) > least, run)
        broker.kill()
        at_kill = len(acted(tmp_path))
        assert 0 < at_kill < MESSAGES, "the kill came too late"
        wait_until(lambda times=number + 1: run.errors.read_text().count("connection lost") >= times, run)
        broker.start()
    wait_until(lambda: len(acted(tmp_path)) == MESSAGES, run)
    ended(run)
    assert sorted(acted(tmp_path)) == sorted(ids(MESSAGES))
    assert len(decided(home)) == MESSAGES


@DURABLE
def test_a_batch_that_is_held_longer_than_the_broker_waits_is_not_sent_again(tmp_path: Path, home: Path, broker: Broker) -> None:
    short = {"ack_wait": "1s"} if isinstance(broker, Nats) else {"claim_idle": "1s"} if isinstance(broker, Redis) else {}
    file = pipeline_file(tmp_path, broker.source(**short))
    broker.put([message(200)])
    run = Run(file)
    wait_until(lambda: acted(tmp_path) == ["m200"], run)
    lock = sqlite3.connect(tmp_path / "acts.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    broker.put([message(number) for number in range(200)])
    wait_until(lambda: len(decided(home)) == 201, run)
    time.sleep(4)  # the sink hangs, four times as long as the broker waits for a sign of life
    assert len(acted(tmp_path)) == 1
    lock.execute("COMMIT")
    lock.close()
    wait_until(lambda: len(acted(tmp_path)) == 201, run)
    summary = ended(run)
    assert summary["messages"] == 201
    assert summary["redelivered"] == 0


@pytest.mark.parametrize("kind", list(BROKERS))
def test_two_processes_share_the_messages_and_what_one_held_when_it_died_goes_to_the_other(
    tmp_path: Path, home: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Kafka(tmp_path / "broker", partitions=4) if kind == "kafka" else BROKERS[kind](tmp_path / "broker")
    try:
        _share(tmp_path, broker, monkeypatch)
    finally:
        broker.stop()


def _share(folder: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    files, runs = [], []
    for name in ("one", "two"):
        own = folder / name / "home"
        own.mkdir(parents=True)
        numbers_registry(own, HOT).close()
        keys = {"consumer": name, "claim_idle": "1s"} if isinstance(broker, Redis) else {}
        files.append(pipeline_file(folder / name, broker.source(in_flight=64, **keys)))
        monkeypatch.setenv("INFERLOOP_HOME", str(own))
        runs.append(Run(files[-1]))
    if isinstance(broker, Kafka):  # a group takes its time until both have partitions
        wait_until(lambda: all(_partitions(run) == 2 for run in runs))
        for partition in range(4):
            broker.put([message(number) for number in range(partition, MESSAGES, 4)], partition=partition)
    else:
        broker.put([message(number) for number in range(MESSAGES)])
    wait_until(lambda: all(len(acted(file.parent)) > 200 for file in files))
    runs[0].kill()
    by_one, everything = set(acted(files[0].parent)), set(ids(MESSAGES))
    assert 0 < len(by_one) < MESSAGES, "the kill came too late"
    wait_until(lambda: by_one | set(acted(files[1].parent)) == everything, runs[1])
    ended(runs[1])
    twice = by_one & set(acted(files[1].parent))
    if not isinstance(broker, Kafka):  # it is told of acknowledgements a moment later
        assert len(twice) <= 64 + 32, "beyond what was in flight"


def _partitions(run: Run) -> int:
    """How many the log says it has now."""
    counts = re.findall(r"partitions assigned .*partitions=(\d+)", run.errors.read_text())
    return int(counts[-1]) if counts else 0
