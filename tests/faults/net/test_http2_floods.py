"""What a hostile HTTP/2 client does: each flood is proven to have hit, and a well-behaved client is answered afterwards."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from inferloop.net.http2 import blocks, frames
from inferloop.net.http2.limits import Http2Limits
from inferloop.net.http2.server import Http2Server
from inferloop.net.http2.violation import ErrorCode as E
from support.calls import Calls
from support.http2_peer import Peer, block, call, data, framed, request

LIMITS = Http2Limits(
    message_bytes=1_000_000, buffered_bytes=2_000_000, streams=100, resets=200, resets_per_s=0, control=300, control_per_s=0,
    unsent_bytes=20_000, connections=5, rate=1e9, linger_s=60,
)  # fmt: skip
START = frames.PREFACE + frames.settings({})


@dataclass
class Running:
    port: int
    calls: Calls
    server: Http2Server


@asynccontextmanager
async def serving(**limits: float) -> AsyncIterator[Running]:
    """A server that is patient but for the limits that a test is about."""
    calls = Calls()
    async with Http2Server(calls.find, port=0, limits=replace(LIMITS, **limits)) as server:  # type: ignore[arg-type]
        yield Running(server.port, calls, server)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as server:
        yield server


async def is_served(running: Running) -> None:
    """A well-behaved client is answered, and nothing of the flood is left at work."""
    async with Peer(running.port) as peer:
        peer.send(call(1, "same", b"fine"))
        assert await peer.answer(1) == b"fine"
        await peer.until(lambda: running.calls.working == 0)


def rapid_resets() -> bytes:
    return b"".join(request(k, "held") + frames.rst_stream(k, E.CANCEL) for k in range(1, 1000, 2))


def resets_that_we_are_made_to_send() -> bytes:
    return b"".join(request(k, "echo") + frames.window_update(k, 0) for k in range(1, 1000, 2))


def continuations(size: int) -> bytes:
    part = frames.head(size, 9, 0, 1) + b"\x82" * size
    return request(1, "same", flags=0) + part * (2000 if size < 100 else 20)


FLOODS = {
    "rapid reset": rapid_resets(),
    "made you reset": resets_that_we_are_made_to_send(),
    "small continuations": continuations(1),
    "empty continuations": continuations(0),
    "large continuations": continuations(16_000),
    "settings": frames.settings({4: 65_535}) * 2000,
    "acknowledged settings": frames.SETTINGS_ACK * 2000,
    "ping": frames.ping(b"12345678") * 2000,
    "empty data": request(1, "echo") + data(1, b"", 0) * 2000,
    "padding alone": request(1, "echo") + (frames.head(9, 0, 8, 1) + b"\x08" + b"\0" * 8) * 2000,
    "priority": (frames.head(5, 2, 0, 1) + b"\0\0\0\0\1") * 2000,
    "unknown frames": frames.head(0, 0x99, 0, 0) * 2000,
    "data on closed streams": call(1, "same", b"") + data(1, b"x", 0) * 4000,
    "refused streams": b"".join(request(k, "held") for k in range(1, 4001, 2)),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_ends_its_connection_and_no_other(running: Running, flood: str) -> None:
    async with Peer(running.port) as peer:
        peer.send(FLOODS[flood])
        assert await peer.goaway() == E.ENHANCE_YOUR_CALM
    await is_served(running)


async def test_a_bomb_of_references_is_refused_and_takes_no_memory(running: Running) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with Peer(running.port) as peer:
        kept = block("/test.Echo/same") + b"\x40" + blocks.literal(b"a", b"b" * 4000)[1:]
        peer.send(frames.head(len(kept), 1, 4, 1), kept, data(1, framed(b"kept")))
        assert await peer.answer(1) == b"kept"
        bomb = block("/test.Echo/same") + b"\xbe" * 60_000  # 240 MB, were it unpacked
        for stream in range(3, 43, 2):
            peer.send(frames.head(len(bomb), 1, 5, stream), bomb)
        for stream in range(3, 43, 2):
            assert await peer.status(stream) == "8"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    await is_served(running)


async def test_messages_that_never_end_are_bounded_on_one_connection(running: Running) -> None:
    async with Peer(running.port) as peer:
        for stream in range(1, 21, 2):
            peer.send(request(stream, "size"), data(stream, b"\0\0\x0f\x00\x00", 0))  # 983,040 bytes to come
            for _ in range(8):
                peer.send(data(stream, bytes(60_000), 0))
        await peer.until(lambda: any("unread" in dict(h[-1]).get("grpc-message", "") for h in peer.headers.values()))
    await is_served(running)


async def test_a_client_that_does_not_read_is_dropped() -> None:
    async with serving(write_s=0.4) as running:
        async with Peer(running.port, {frames.INITIAL_WINDOW_SIZE: 2**30}) as peer:
            peer.send(frames.window_update(0, 2**30), *(call(k, "zeros", b"3000000") for k in range(1, 41, 2)))
            peer.pause()
            await peer.until(lambda: running.calls.begun == 20)
            await peer.until(lambda: running.server.connections == 0 or not running.server.calls)
        await is_served(running)


async def test_an_answer_whose_window_stays_closed_is_given_up() -> None:
    async with serving(write_s=0.4) as running:
        async with Peer(running.port, {frames.INITIAL_WINDOW_SIZE: 0}) as peer:
            peer.send(call(1, "same", b"x"), request(3, "count"), data(3, framed(b"5")))
            await peer.until(lambda: {1, 3} <= set(peer.resets))
            assert peer.resets[1] == E.ENHANCE_YOUR_CALM
        await is_served(running)


async def test_a_request_that_does_not_come_is_given_up() -> None:
    async with serving(body_s=0.4) as running:
        async with Peer(running.port) as peer:
            peer.send(request(1, "same"), data(1, framed(b"abc")[:-1], 0))
            assert await peer.status(1) == "4"
        await is_served(running)


@pytest.mark.parametrize(
    "start",
    [b"", frames.PREFACE[:5], frames.PREFACE, START + request(1, "same", flags=0), START + frames.head(100, 0, 0, 1) + b"half"],
    ids=["nothing", "half a preface", "no settings", "half a block", "half a frame"],
)
async def test_a_client_that_stops_halfway_is_sent_away(start: bytes) -> None:
    async with serving(header_s=0.4) as running, Peer(running.port, start=start, mute=True) as peer:
        assert await peer.goaway() == E.ENHANCE_YOUR_CALM


async def test_an_idle_connection_is_closed_politely() -> None:
    async with serving(idle_s=0.6) as running, Peer(running.port) as peer:
        assert await peer.goaway() == E.NO_ERROR


async def test_a_dead_client_with_open_calls_is_found_by_a_ping() -> None:
    async with serving(keepalive_s=0.4, keepalive_reply_s=0.3) as running:
        async with Peer(running.port) as peer:
            peer.send(request(1, "echo"))
            peer.pause()
            await peer.until(lambda: running.calls.begun == 1)
            await peer.until(lambda: running.server.connections == 0)
        await is_served(running)


async def test_a_silent_client_that_answers_pings_keeps_its_stream() -> None:
    async with serving(keepalive_s=0.2, keepalive_reply_s=60) as running, Peer(running.port) as peer:
        peer.send(request(1, "echo"))
        await peer.until(lambda: peer.pings >= 3)
        peer.send(data(1, framed(b"still here")))
        assert await peer.answer(1) == b"still here"


async def test_connections_above_the_limit_are_told_so(running: Running) -> None:
    peers = [Peer(running.port) for _ in range(LIMITS.connections)]
    for peer in peers:
        await peer.__aenter__()
        peer.send(request(1, "echo"))
    await peers[0].until(lambda: running.calls.working == LIMITS.connections)
    async with Peer(running.port) as one_more:
        assert await one_more.goaway() == E.ENHANCE_YOUR_CALM
    for peer in peers:
        await peer.__aexit__()
    await peers[0].until(lambda: running.server.connections == 0)
    await is_served(running)


async def test_hanging_up_in_any_state_leaves_nothing_behind(running: Running) -> None:
    whole = START + call(1, "later", b"a") + request(3, "echo") + data(3, framed(b"b"), 0) + call(5, "held", b"c")
    for cut in range(0, len(whole) + 1, 3):
        async with Peer(running.port, start=whole[:cut]) as peer:
            if cut % 2:
                await asyncio.sleep(0.001)
            peer.hang_up()
        await peer.until(lambda: running.server.connections < LIMITS.connections)
    await is_served(running)
    async with Peer(running.port) as peer:
        await peer.until(lambda: running.server.connections == 1 and not running.server.tasks)


async def test_a_method_that_raises_something_of_its_own_is_internal_without_detail(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async with Peer(running.port) as peer:
        peer.send(call(1, "broken", b""))
        assert await peer.status(1) == "13"
        assert peer.trailers(1)["grpc-message"] == "internal error"
        assert "secret" in caplog.text
    await is_served(running)
