"""The MQTT source against real brokers: protocols, bounds, a broker that comes late."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext
from inferloop.streams.sources.mqtt import MqttSource
from support.broker import Mosquitto, Publisher, free_port


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker", options="log_type all")
    yield broker
    broker.stop()


@pytest.fixture
async def old_broker() -> AsyncIterator[int]:
    """An in-process broker that speaks 3.1.1 only."""
    amqtt = pytest.importorskip("amqtt.broker", reason="amqtt is not installed: pip install 'inferloop[demo]'")
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    port = free_port()
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    broker = amqtt.Broker(config)
    await broker.start()
    yield port
    await broker.shutdown()


def source(url: str, **options: Any) -> MqttSource:
    config = MqttSource.Config(url=url, topics=["feed/#"], client_id="flow", **options)
    return MqttSource(config, SourceContext("p", "feed"))


async def read(source: MqttSource, count: int, *, limit_s: float = 60.0) -> list[Message]:
    messages: list[Message] = []
    async with asyncio.timeout(limit_s):
        while len(messages) < count:
            messages += await source.read()
    return messages


async def said(caplog: pytest.LogCaptureFixture, message: str) -> None:
    """Wait for a line of our log."""
    async with asyncio.timeout(60):
        while not any(record.getMessage() == message for record in caplog.records):
            await asyncio.sleep(0.01)


async def idle(source: MqttSource, seconds: float = 0.3) -> list[Message]:
    """What comes within a while."""
    try:
        async with asyncio.timeout(seconds):
            return list(await source.read())
    except TimeoutError:
        return []


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_no_more_than_in_flight_are_handed_over_unacknowledged(broker: Mosquitto, protocol: str) -> None:
    feed = source(broker.url, protocol=protocol, in_flight=10)
    broker.subscribe_for("flow", "feed/#")
    await asyncio.to_thread(broker.publish, "feed/1", [b"%d" % number for number in range(100)])
    await feed.open()
    first = await read(feed, 10)
    first += await idle(feed)
    assert 10 <= len(first) <= 11  # on 3.1.1 the one over the bound was read before the reader stopped
    await feed.ack(first[:4])
    more = await read(feed, 1)
    assert len(first) - 4 + len(more) <= 11
    await feed.close()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_backlog_far_beyond_the_window_comes_completely_and_in_order(broker: Mosquitto, protocol: str) -> None:
    broker.subscribe_for("flow", "feed/#")
    payloads = [b"%d" % number for number in range(20_000)]
    await asyncio.to_thread(broker.publish, "feed/1", payloads)
    feed = source(broker.url, protocol=protocol, in_flight=256)
    await feed.open()
    got: list[bytes] = []
    async with asyncio.timeout(60):
        while len(got) < len(payloads):
            messages = await feed.read()
            got += [message.payload for message in messages]
            await feed.ack(messages)
    await feed.close()
    assert got == payloads


async def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1(old_broker: int, caplog: pytest.LogCaptureFixture) -> None:
    feed = source(f"mqtt://127.0.0.1:{old_broker}")
    with caplog.at_level(logging.INFO):
        async with asyncio.timeout(60):
            await feed.open()
    publisher = await asyncio.to_thread(Publisher, old_broker)
    await asyncio.to_thread(publisher.publish, "feed/1", [b"1", b"2", b"3"])
    messages = await read(feed, 3)
    await feed.ack(messages)
    await asyncio.to_thread(publisher.close)
    await feed.close()
    assert [message.payload for message in messages] == [b"1", b"2", b"3"]
    assert any(getattr(record, "protocol", "") == "3.1.1" for record in caplog.records)


async def test_a_broker_that_comes_late_is_waited_for_with_a_message(
    tmp_path: Path, broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    broker.stop()
    feed = source(broker.url)
    opening = asyncio.create_task(feed.open())
    await said(caplog, "broker not there")
    assert not opening.done()
    await asyncio.to_thread(broker.start)
    async with asyncio.timeout(60):
        await opening
    await asyncio.to_thread(broker.publish, "feed/1", [b"hello"])
    assert [message.payload for message in await read(feed, 1)] == [b"hello"]
    await feed.close()


async def test_opening_can_be_cancelled_while_the_broker_is_away(caplog: pytest.LogCaptureFixture) -> None:
    feed = source(f"mqtt://127.0.0.1:{free_port()}")
    opening = asyncio.create_task(feed.open())
    await said(caplog, "broker not there")
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await feed.close()


async def test_after_a_reconnection_what_was_not_acknowledged_comes_again(broker: Mosquitto) -> None:
    feed = source(broker.url)
    await feed.open()
    await asyncio.to_thread(broker.publish, "feed/1", [b"1", b"2"])
    before = await read(feed, 2)
    await feed.ack(before[:1])
    await asyncio.to_thread(broker.said, "Received PUBACK from flow")
    broker.stop()
    await asyncio.to_thread(broker.start)
    again = await read(feed, 1)
    await feed.ack(before[1:])  # of the connection that is gone: does nothing
    await feed.ack(again)
    await feed.close()
    assert [message.payload for message in again] == [b"2"]


async def test_a_connection_that_says_a_wrong_password_is_refused_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "passwords").write_text("")
    closed = Mosquitto(tmp_path / "closed", options=f"password_file {tmp_path}/passwords\nallow_anonymous false")
    feed = source(closed.url.replace("//", "//user:secret@"))
    opening = asyncio.create_task(feed.open())
    await said(caplog, "broker refused the connection")
    assert not opening.done()
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    closed.stop()
    assert "secret" not in caplog.text


async def test_messages_that_the_broker_does_not_count_are_bounded_too(broker: Mosquitto) -> None:
    source_ = source(broker.url, in_flight=10)
    await source_.open()
    broker.publish("feed/1", [b"%d" % number for number in range(500)], qos=0)
    await asyncio.sleep(0.5)
    first = await read(source_, 1)
    assert len(first) <= 12
    await source_.ack(first)
    assert await read(source_, 1)
    await source_.close()
