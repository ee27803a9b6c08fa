"""WebSocket servers that are killed, hang up, fall silent or talk too fast: the source goes on, and its memory does not grow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import WSMsgType, web

from inferloop.core.errors import InvalidInput
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext
from inferloop.streams.sources.websocket import WebSocketSource
from support.feed_server import FeedServer

Handler = Callable[[web.Request, web.WebSocketResponse], Awaitable[None]]


def source(url: str, **options: Any) -> WebSocketSource:
    return WebSocketSource(WebSocketSource.Config(url=url, **options), SourceContext("p", "feed"))


def number(message: Message) -> int:
    return int(json.loads(message.payload)["number"])


async def read(feed: WebSocketSource, count: int, *, ack: bool = True) -> list[Message]:
    messages: list[Message] = []
    async with asyncio.timeout(60):
        while len(messages) < count:
            some = await feed.read()
            messages += some
            if ack:
                await feed.ack(some)
    return messages


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FeedServer]:
    server = FeedServer(tmp_path / "feed")
    server.start()
    yield server
    server.stop()


@contextlib.asynccontextmanager
async def serving(handle: Handler, *, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server here, for one kind of misbehavior; gives its address."""

    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        await handle(request, socket)
        return socket

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
    try:
        yield f"{'ws' if ssl_context is None else 'wss'}://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_after_a_kill_of_the_server_messages_flow_again(server: FeedServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    feed = source(server.url, hello="from 0", subprotocols=["v3.numbers", "v2.numbers"], token="t1", headers={"X-Extra": "e"})
    await feed.open()
    before = await read(feed, 500)
    server.kill()  # it asserts that the server ran, and so was in the midst of its flood
    while not any(record.message == "connection lost" for record in caplog.records):
        before += await _at_hand(feed)
    before += await _at_hand(feed)
    server.start()
    after = await read(feed, 500)
    await feed.close()
    assert list(map(number, before)) == list(range(len(before))), "in order, and none of them is torn"
    assert list(map(number, after)) == list(range(len(after))), "the new server counts anew"
    said = {"hello": "from 0", "protocol": "v2.numbers", "authorization": "Bearer t1", "extra": "e"}
    assert server.hellos() == [said, said]


async def _at_hand(feed: WebSocketSource) -> list[Message]:
    """What comes within a moment."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            messages = list(await feed.read())
            await feed.ack(messages)
            return messages
    return []


async def test_a_reader_that_does_not_acknowledge_holds_up_the_server_and_loses_nothing(server: FeedServer) -> None:
    feed = source(server.url, hello="from 0", in_flight=50, heartbeat="1s")
    await feed.open()
    held = await read(feed, 50, ack=False)
    sent = -1
    while sent != server.sent():  # until TCP holds it up
        sent = server.sent()
        await asyncio.sleep(0.5)
    await asyncio.sleep(2.5)  # more than twice the heartbeat: being held up is no silence
    assert server.sent() == sent
    assert len(held) == 50
    await feed.ack(held)
    rest = await read(feed, sent + 1000)
    await feed.close()
    assert [number(message) for message in (*held, *rest)] == list(range(50 + len(rest)))
    assert len(server.hellos()) == 1, "the connection was kept"


async def test_a_server_that_says_nothing_is_asked_and_left_when_it_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    asked: list[WSMsgType] = []

    async def silent(_: web.Request, socket: web.WebSocketResponse) -> None:
        if asked:
            await socket.send_str("back")
        while (frame := await socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING):
            asked.append(frame.type)

    async with serving(silent) as url:
        feed = source(url, heartbeat="200ms")
        await feed.open()
        (message,) = await read(feed, 1)
        await feed.close()
    assert message.payload == b"back"
    assert asked[0] is WSMsgType.PING
    assert "no sign of life for 0.4 s" in str([record.__dict__ for record in caplog.records])


async def test_a_quiet_server_that_answers_is_not_left_and_its_own_pings_are_answered() -> None:
    heard: list[WSMsgType] = []

    async def quiet(_: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.ping()
        while (frame := await socket.receive()).type in (WSMsgType.PING, WSMsgType.PONG):
            heard.append(frame.type)
            if frame.type is WSMsgType.PING:
                await socket.pong()
            if heard.count(WSMsgType.PING) == 5:
                await socket.send_bytes(b"still here")

    async with serving(quiet) as url:
        feed = source(url, heartbeat="100ms")
        await feed.open()
        (message,) = await read(feed, 1)
        await feed.close()
    assert message.payload == b"still here"
    assert heard[0] is WSMsgType.PONG


async def test_a_server_that_hangs_up_at_once_is_not_hammered(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    connected = 0

    async def rude(_: web.Request, socket: web.WebSocketResponse) -> None:
        nonlocal connected
        connected += 1
        await socket.close(code=4001, message=b"no such subscription")

    async with serving(rude) as url:
        feed = source(url)
        await feed.open()
        await asyncio.sleep(1.5)
        await feed.close()
    assert 2 <= connected < 30
    assert "closed with code 4001: no such subscription" in str([record.__dict__ for record in caplog.records])


async def test_a_message_that_is_too_large_ends_the_connection_and_the_next_one_goes_on() -> None:
    connected = 0

    async def large(_: web.Request, socket: web.WebSocketResponse) -> None:
        nonlocal connected
        connected += 1
        await socket.send_str("x" * (2000 if connected == 1 else 10))
        await socket.receive()

    async with serving(large) as url:
        feed = source(url, max_message="1KB")
        await feed.open()
        (message,) = await read(feed, 1)
        await feed.close()
    assert message.payload == b"x" * 10
    assert connected == 2


async def test_a_mapping_is_said_as_json_and_several_hellos_in_order() -> None:
    said: list[str] = []

    async def listens(_: web.Request, socket: web.WebSocketResponse) -> None:
        said.extend([await socket.receive_str(), await socket.receive_str()])
        await socket.send_str("heard")

    async with serving(listens) as url:
        feed = source(url, hello=["login", {"op": "subscribe", "topics": ["a"]}])
        await feed.open()
        await read(feed, 1)
        await feed.close()
    assert said == ["login", '{"op":"subscribe","topics":["a"]}']


async def test_over_tls_only_a_server_that_is_trusted_is_heard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def greets(_: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.send_str("trusted")
        await socket.receive()

    async with serving(greets, ssl_context=context) as url:
        stranger = asyncio.create_task(source(url).open())
        async with asyncio.timeout(20):
            while not any("not there" in record.message for record in caplog.records):
                await asyncio.sleep(0.02)
        stranger.cancel()
        await asyncio.gather(stranger, return_exceptions=True)
        feed = source(url, ca=tmp_path / "ca.pem")
        await feed.open()
        (message,) = await read(feed, 1)
        await feed.close()
    assert message.payload == b"trusted"
    assert "certificate" in str([record.__dict__ for record in caplog.records])


async def test_a_file_of_certificates_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"ca: .*nothing\.pem: No such file"):
        await source("wss://127.0.0.1:1/", ca=tmp_path / "nothing.pem").open()
