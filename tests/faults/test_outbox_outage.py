"""The uplink of an edge is down: the outbox takes what it would have got, across a kill, and hands it over in order."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.pipelines import content, message, save
from support.runs import Run, decided, wait_until
from support.stream_worlds.nats import STREAM, Nats
from support.stream_worlds.redis import Redis

MESSAGES = 3000


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Redis]:
    feed = Redis(tmp_path / "feed")
    yield feed
    feed.stop()


@pytest.fixture
def uplink(tmp_path: Path) -> Iterator[Nats]:
    uplink = Nats(tmp_path / "uplink")
    yield uplink
    uplink.stop()


def edge(folder: Path, feed: Redis, uplink: Nats, **outbox: Any) -> Path:
    sections = content(
        sources={"feed": feed.source()},
        sinks={"act": {"nats": {"url": uplink.url, "subject": "feed.act", "json": {"id": "=id", "device": "=key"}}}},
        outbox={"sqlite": {"path": str(folder / "outbox.db")}, **outbox},
    )
    return save(folder / "edge.yaml", sections)


def stored(folder: Path) -> int:
    """Deliveries that wait in the outbox."""
    if not (folder / "outbox.db").exists():
        return 0
    database = sqlite3.connect(folder / "outbox.db", timeout=30)
    with contextlib.closing(database), contextlib.suppress(sqlite3.OperationalError):
        return int(database.execute("SELECT count(*) FROM parcels").fetchone()[0])
    return 0


def unacknowledged(feed: Redis) -> int:
    with feed.client() as client:
        (group,) = client.xinfo_groups("feed")
        return int(group["pending"] + (group["lag"] or 0))


def arrived(uplink: Nats) -> list[dict[str, str]]:
    async def everything(js: Any) -> list[dict[str, str]]:
        found = []
        reader = await js.subscribe("feed.act", stream=STREAM, ordered_consumer=True)
        for _ in range((await js.stream_info(STREAM)).state.messages):
            found.append(json.loads((await reader.next_msg(10)).data))
        return found

    answer: list[dict[str, str]] = uplink.ask(everything)
    return answer


def count(uplink: Nats) -> int:
    async def messages(js: Any) -> int:
        return int((await js.stream_info(STREAM)).state.messages)

    answer: int = uplink.ask(messages)
    return answer


def test_an_outage_and_a_kill_in_it_lose_nothing_and_keep_the_order_of_every_key(
    tmp_path: Path, home: Path, feed: Redis, uplink: Nats
) -> None:
    file = edge(tmp_path, feed, uplink)
    feed.put([message(number) for number in range(MESSAGES // 3)])
    run = Run(file)
    wait_until(lambda: count(uplink) == MESSAGES // 3, run)
    uplink.stop()
    feed.put([message(number) for number in range(MESSAGES // 3, 2 * MESSAGES // 3)])
    wait_until(lambda: stored(tmp_path) > 200, run)
    run.kill()
    at_kill = stored(tmp_path)
    assert at_kill > 0, "nothing was stored when it was killed"
    run = Run(file)
    feed.put([message(number) for number in range(2 * MESSAGES // 3, MESSAGES)])
    wait_until(lambda: stored(tmp_path) == MESSAGES - MESSAGES // 3 and not unacknowledged(feed), run)
    wait_until(lambda: "other side not there" in run.errors.read_text(), run)
    uplink.start()
    wait_until(lambda: stored(tmp_path) == 0, run)
    run.terminate()
    summary = run.end()
    found = arrived(uplink)
    assert sorted(entry["id"] for entry in found) == sorted(f"m{number}" for number in range(MESSAGES))
    assert len(decided(home)) == MESSAGES
    by_device = defaultdict(list)
    for entry in found:
        by_device[entry["device"]].append(int(entry["id"][1:]))
    assert len(by_device) == 50
    assert all(numbers == sorted(numbers) for numbers in by_device.values())
    assert summary["delivered"]["act"] == MESSAGES - MESSAGES // 3


def test_sigterm_in_an_outage_ends_at_once_and_leaves_nothing_to_be_sent_again_by_the_source(
    tmp_path: Path, home: Path, feed: Redis, uplink: Nats
) -> None:
    uplink.stop()
    file = edge(tmp_path, feed, uplink)
    feed.put([message(number) for number in range(500)])
    run = Run(file)
    wait_until(lambda: stored(tmp_path) == 500 and not unacknowledged(feed), run)
    run.terminate()
    summary = run.end()
    assert (summary["acknowledged"], summary["stored"], summary["delivered"]) == (500, {"act": 500}, {})
    uplink.start()
    again = Run(file)
    wait_until(lambda: count(uplink) == 500, again)
    again.terminate()
    assert again.end()["messages"] == 0


def test_a_full_outbox_holds_up_the_source_and_its_broker_keeps_the_rest(
    tmp_path: Path, home: Path, feed: Redis, uplink: Nats
) -> None:
    uplink.stop()
    file = edge(tmp_path, feed, uplink, max_size="100KB")
    feed.put([message(number) for number in range(MESSAGES)])
    run = Run(file)
    wait_until(lambda: stored(tmp_path) > 200, run)
    wait_until(lambda: len(decided(home)) > stored(tmp_path) + 200, run)
    assert unacknowledged(feed) > MESSAGES // 4
    full = stored(tmp_path)
    uplink.start()
    wait_until(lambda: count(uplink) == MESSAGES, run)
    run.terminate()
    run.end()
    assert 200 < full < MESSAGES
    assert sorted(entry["id"] for entry in arrived(uplink)) == sorted(f"m{number}" for number in range(MESSAGES))
