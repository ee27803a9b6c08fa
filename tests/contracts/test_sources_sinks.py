"""What every source and every sink promises, against real brokers, servers and files; a new plugin needs a world here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from inferloop.core import plugins
from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink, Source
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext
from support.stream_worlds import (
    Payloads,
    SinkWorld,
    SourceWorld,
    files,
    http,
    influxdb,
    kafka,
    model,
    mqtt,
    nats,
    postgres,
    rabbitmq,
    redis,
    s3,
    smtp,
    stdin,
    video,
    websocket,
)

SOURCES = {
    "http": http.http_source,
    "websocket": websocket.websocket_source,
    "stdin": stdin.stdin_source,
    "directory": files.directory_source,
    "video": video.video_source,
    "file": files.file_source,
    "mqtt": mqtt.mqtt_source,
    "kafka": kafka.kafka_source,
    "nats": nats.nats_source,
    "rabbitmq": rabbitmq.rabbitmq_source,
    "redis": redis.redis_source,
}
SINKS = {
    "webhook": http.webhook_sink,
    "model": model.model_sink,
    "smtp": smtp.smtp_sink,
    "mqtt": mqtt.mqtt_sink,
    "kafka": kafka.kafka_sink,
    "nats": nats.nats_sink,
    "rabbitmq": rabbitmq.rabbitmq_sink,
    "postgres": postgres.postgres_sink,
    "influxdb": influxdb.influxdb_sink,
    "redis": redis.redis_sink,
    "s3": s3.s3_sink,
    "sqlite": files.sqlite_sink,
    "file": files.file_sink,
    "stdout": files.stdout_sink,
    "queue": files.queue_sink,
}


ELSEWHERE = {"camera": "a camera has no backlog: tests/faults/test_camera.py"}


@pytest.fixture(params=plugins.names("sources"))
async def source_world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SourceWorld]:
    if request.param in ELSEWHERE:
        pytest.skip(ELSEWHERE[request.param])
    async with SOURCES[request.param](tmp_path) as world:
        yield world


@pytest.fixture(params=plugins.names("sinks"))
async def sink_world(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[SinkWorld]:
    async with SINKS[request.param](tmp_path, capsys) as world:
        yield world


def payloads(count: int) -> Payloads:
    return [json.dumps({"number": number}).encode() for number in range(count)]


def deliveries(*numbers: int) -> list[Delivery]:
    return [Delivery(f"k{number}", {"number": number, "text": "ä|'"}, f"m{number}") for number in numbers]


def ordered(source: Source, messages: Sequence[Message]) -> Payloads:
    """The payloads as they came; of a source that promises no order as they were sent."""
    came = [message.payload for message in messages]
    return came if source.ordered else sorted(came, key=lambda payload: int(json.loads(payload)["number"]))


async def read(source: Source, count: int) -> list[Message]:
    messages: list[Message] = []
    async with asyncio.timeout(60):
        while len(messages) < count:
            messages += await source.read()
    return messages


async def give(sink: Sink, them: Sequence[Delivery]) -> None:
    for batch in [them] if sink.batched else [[one] for one in them]:
        await sink.send(batch)


async def test_a_source_gives_every_message_in_order(source_world: SourceWorld) -> None:
    source_world.put(payloads(300))
    source = source_world.make()
    await source.open()
    messages = await read(source, 300)
    await source.close()
    assert ordered(source, messages) == payloads(300)
    assert {message.source for message in messages} == {"feed"}
    assert all(message.position for message in messages) is source.replayable


async def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(source_world: SourceWorld) -> None:
    source_world.put(payloads(100))
    source = source_world.make()
    if not source.durable:
        assert getattr(source, "caveat", ""), "it must say what may be lost"
        pytest.skip("it says that nothing comes again")
    await source.open()
    messages = await read(source, 100)
    await source.ack(messages[:40])
    await source.close()
    again = source_world.make()
    await again.open()
    rest = await read(again, 60)
    await again.ack(rest)
    await again.close()
    acknowledged = {message.payload for message in messages[:40]}
    assert ordered(source, rest) == [payload for payload in payloads(100) if payload not in acknowledged]


async def test_a_backlog_far_beyond_what_may_be_in_flight_comes_completely_and_in_order(source_world: SourceWorld) -> None:
    source_world.put(payloads(20_000))
    source = source_world.make()
    await source.open()
    messages: list[Message] = []
    most = 0
    async with asyncio.timeout(120):
        while len(messages) < 20_000:
            some = await source.read()
            most = max(most, len(some))
            messages += some
            await source.ack(some)
    await source.close()
    assert most < 20_000, "it never was beyond"
    assert ordered(source, messages) == payloads(20_000)


async def test_nothing_is_left_running_when_a_source_is_closed_or_its_opening_is_cancelled(source_world: SourceWorld) -> None:
    source_world.put(payloads(1))
    before = {*asyncio.all_tasks()}, {thread.name for thread in threading.enumerate()}
    source = source_world.make()
    await source.open()
    await read(source, 1)
    await source.close()
    opening = asyncio.create_task(source_world.make().open())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await asyncio.sleep(0.05)
    left = {*asyncio.all_tasks()} - before[0], {thread.name for thread in threading.enumerate()} - before[1]
    assert not left[0]
    assert all(name.startswith("asyncio_") for name in left[1])


async def test_a_cancelled_read_loses_nothing_and_a_second_close_does_nothing(source_world: SourceWorld) -> None:
    if not source_world.grows:
        pytest.skip("nothing comes later")
    source = source_world.make()
    source_world.put(payloads(1))
    await source.open()
    await read(source, 1)
    waiting = asyncio.create_task(source.read())
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    source_world.put(payloads(2)[1:])
    assert [message.payload for message in await read(source, 1)] == payloads(2)[1:]
    await source.close()
    await source.close()


async def test_a_sink_delivers_in_order(sink_world: SinkWorld) -> None:
    sink = sink_world.make()
    await sink.open()
    await give(sink, deliveries(1, 2, 3))
    await give(sink, deliveries(4))
    await sink.close()
    assert list(sink_world.effects()) == ["k1", "k2", "k3", "k4"]


async def test_an_idempotent_sink_applies_a_repeated_key_once(sink_world: SinkWorld) -> None:
    sink = sink_world.make()
    await sink.open()
    await give(sink, deliveries(1, 2))
    await sink.close()
    again = sink_world.make()
    await again.open()
    await give(again, deliveries(2, 3))
    await again.close()
    once = ["k1", "k2", "k3"]
    assert list(sink_world.effects()) == (once if sink.idempotent else ["k1", "k2", "k2", "k3"])


async def test_a_second_close_of_a_sink_does_nothing(sink_world: SinkWorld) -> None:
    sink = sink_world.make()
    await sink.open()
    await sink.close()
    await sink.close()


@pytest.mark.parametrize(("status", "error"), [(500, Unavailable), (503, Unavailable), (429, Unavailable), (408, Unavailable)])
async def test_a_webhook_that_may_be_tried_again_is_unavailable(status: int, error: type[Exception], tmp_path: Path) -> None:
    async with http.webhook_sink(tmp_path, None) as world:
        await _fails(world, status, error)


@pytest.mark.parametrize("status", [400, 404, 409, 422])
async def test_a_webhook_that_refuses_for_good_is_invalid_input(status: int, tmp_path: Path) -> None:
    async with http.webhook_sink(tmp_path, None) as world:
        await _fails(world, status, InvalidInput)


async def _fails(world: SinkWorld, status: int, error: type[Exception]) -> None:
    assert world.fail is not None
    world.fail(status)
    sink = world.make()
    await sink.open()
    with pytest.raises(error, match=str(status)):
        await give(sink, deliveries(1))
    world.fail(200)
    await give(sink, deliveries(1))
    await sink.close()
    assert list(world.effects()) == ["k1"]


async def test_a_table_without_a_unique_key_column_is_refused(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "out.db")) as database:
        database.execute("CREATE TABLE effects (idempotency_key TEXT, number)")
    async with files.sqlite_sink(tmp_path, None) as world:
        with pytest.raises(InvalidInput, match="no unique column 'idempotency_key'"):
            await world.make().open()


async def test_half_a_line_left_by_a_crash_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "out.jsonl").write_bytes(b'{"number": 1}\n{"numb')
    async with files.file_sink(tmp_path, None) as world:
        sink = world.make()
        await sink.open()
        await give(sink, deliveries(2))
        await sink.close()
    lines = (tmp_path / "deep" / "out.jsonl").read_bytes().splitlines()
    assert lines[1] == b'{"numb'
    assert json.loads(lines[2])["number"] == 2


async def test_a_csv_file_gives_rows_with_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    path.write_bytes(b'id,text\r\n1,"two\nlines"\r\n2,plain\r\n')
    source = plugins.load("sources", "file")
    remembered: list[str] = []
    first = source(source.Config(path=path), SourceContext("p", "feed", "", remembered.append))
    await first.open()
    rows = await read(first, 2)
    await first.ack(rows[:1])
    await first.close()
    second = source(source.Config(path=path), SourceContext("p", "feed", remembered[-1], remembered.append))
    await second.open()
    rest = await read(second, 1)
    await second.close()
    assert [row.payload for row in rows] == [b'1,"two\nlines"', b"2,plain"]
    assert rows[0].headers == {"csv-columns": '["id", "text"]'}
    assert [row.payload for row in rest] == [b"2,plain"]


async def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    source = plugins.load("sources", "file")
    files.appended(path)(payloads(3))
    first = source(source.Config(path=path), SourceContext("p", "feed"))
    await first.open()
    position = (await read(first, 3))[-1].position
    await first.close()
    path.write_bytes(b'{"number": "other"}\n' * 2)
    second = source(source.Config(path=path), SourceContext("p", "feed", position))
    await second.open()
    assert len(await read(second, 2)) == 2
    await second.close()


async def test_a_followed_file_gives_only_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(b'{"number": 0}\n{"numb')
    source = plugins.load("sources", "file")
    following = source(source.Config(path=path, follow=True), SourceContext("p", "feed"))
    await following.open()
    first = await read(following, 1)
    with path.open("ab") as file:
        file.write(b'er": 1}\n')
    second = await read(following, 1)
    await following.close()
    assert [message.payload for message in (*first, *second)] == payloads(2)
