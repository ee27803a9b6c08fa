"""The HTTP server on a real socket: order, keep-alive, limits, time, drain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.net.http import Request, Response
from inferloop.net.http_connection import Handler
from inferloop.net.http_server import HttpServer
from inferloop.net.limits import HttpLimits


class Peer:
    """A client that speaks bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        lines = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 60)).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = b"" if head else await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(lines[0].split()[1]), headers, body

    async def is_closed(self) -> bool:
        return await asyncio.wait_for(self.reader.read(), 60) == b""


async def echo(request: Request) -> Response:
    return Response(200, f"{request.method} {request.path} ".encode() + request.body)


@asynccontextmanager
async def serving(handler: Handler = echo, **limits: float) -> AsyncIterator[tuple[HttpServer, Callable[[], Awaitable[Peer]]]]:
    server = HttpServer(handler, port=0, limits=HttpLimits(**limits))  # type: ignore[arg-type]  # some are whole numbers
    peers: list[Peer] = []

    async def connect() -> Peer:
        peers.append(Peer(*await asyncio.open_connection("127.0.0.1", server.port)))
        return peers[-1]

    await server.start()
    try:
        yield server, connect
    finally:
        for peer in peers:
            peer.writer.close()
        await server.drain(1)


def get(path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: h", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_one_connection_serves_many_requests() -> None:
    async with serving() as (_, connect):
        peer = await connect()
        for number in range(3):
            peer.send(get(f"/{number}", method="POST", body=b"b"))
            assert (await peer.answer())[2] == f"POST /{number} b".encode()


async def test_pipelined_answers_leave_in_the_order_of_the_requests() -> None:
    others = asyncio.Event()

    async def slow_first(request: Request) -> Response:
        await others.wait() if request.path == "/0" else others.set()
        return await echo(request)

    async with serving(slow_first, pipelined=4) as (_, connect):
        peer = await connect()
        peer.send(b"".join(get(f"/{number}") for number in range(50)))
        assert [(await peer.answer())[2] for _ in range(50)] == [f"GET /{number} ".encode() for number in range(50)]


async def test_only_so_many_requests_of_a_connection_are_in_work() -> None:
    busy = most = 0
    full = asyncio.Event()

    async def count(request: Request) -> Response:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        if busy == 3:
            full.set()
        await full.wait()
        await asyncio.sleep(0.001)  # one more than three would begin here
        busy -= 1
        return await echo(request)

    async with serving(count, pipelined=3) as (_, connect):
        peer = await connect()
        peer.send(b"".join(get(f"/{number}") for number in range(40)))
        for _ in range(40):
            await peer.answer()
    assert most == 3


async def test_thousands_of_waiting_requests_are_answered_one_after_the_other() -> None:
    others = asyncio.Event()

    async def slow_first(request: Request) -> Response:
        await others.wait() if request.path == "/0" else others.set()
        return Response(200)

    async with serving(slow_first, pipelined=2) as (_, connect):
        peer = await connect()
        peer.send(b"".join(get(f"/{number}") for number in range(5000)))
        assert {(await peer.answer())[0] for _ in range(5000)} == {200}


async def test_an_immediate_error_waits_for_the_answers_before_it() -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.05)
        return await echo(request)

    async with serving(slow) as (_, connect):
        peer = await connect()
        peer.send(get("/first") + b"nonsense\r\n\r\n")
        assert [(await peer.answer())[0] for _ in range(2)] == [200, 400]
        assert await peer.is_closed()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01 TLS?\r\n\r\n", 400),
        (get("/", "A: " + "x" * 2000), 431),
        (get("/", method="POST", body=b"x" * 2000), 413),
        (get("/", "Transfer-Encoding: chunked", method="POST") + b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n", 413),
    ],
)
async def test_a_refusal_is_json_and_closes(data: bytes, status: int) -> None:
    async with serving(body_bytes=1000, header_bytes=1000) as (_, connect):
        peer = await connect()
        peer.send(data)
        got, headers, body = await peer.answer()
        assert (got, headers["connection"], list(json.loads(body))) == (status, "close", ["error"])
        assert await peer.is_closed()


async def test_a_client_that_keeps_sending_still_sees_its_413() -> None:
    async with serving(body_bytes=1000) as (_, connect):
        peer = await connect()
        peer.send(get("/", "Content-Length: 50000000", method="POST"))
        for _ in range(100):
            peer.send(b"x" * 65536)
        assert (await peer.answer())[0] == 413


async def test_expect_100_continue_is_answered_before_the_body() -> None:
    async with serving(body_bytes=1000) as (_, connect):
        peer = await connect()
        peer.send(get("/", "Expect: 100-continue", "Content-Length: 2", method="POST"))
        assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send(b"ok")
        assert (await peer.answer())[2] == b"POST / ok"


async def test_a_body_that_is_too_large_is_refused_instead_of_invited() -> None:
    async with serving(body_bytes=1000) as (_, connect):
        peer = await connect()
        peer.send(get("/", "Expect: 100-continue", "Content-Length: 2000", method="POST"))
        assert (await peer.answer())[0] == 413


async def test_connection_close_and_http_1_0_close_after_the_answer() -> None:
    async with serving() as (_, connect):
        for data in (get("/a", "Connection: close"), b"GET /a HTTP/1.0\r\n\r\n"):
            peer = await connect()
            peer.send(data)
            _, headers, body = await peer.answer()
            assert (headers["connection"], body) == ("close", b"GET /a ")
            assert await peer.is_closed()


async def test_http_1_0_may_ask_to_stay() -> None:
    async with serving() as (_, connect):
        peer = await connect()
        for _ in range(2):
            peer.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (await peer.answer())[1]["connection"] == "keep-alive"


async def test_head_gets_the_headers_alone() -> None:
    async with serving() as (_, connect):
        peer = await connect()
        peer.send(get("/", method="HEAD") + get("/next"))
        assert (await peer.answer(head=True))[1]["content-length"] == "7"
        assert (await peer.answer())[2] == b"GET /next "


async def test_a_client_that_closes_its_side_has_left() -> None:
    begun = asyncio.Event()

    async def endless(_: Request) -> Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(endless) as (server, connect):
        peer = await connect()
        peer.send(get("/a"))
        await begun.wait()
        peer.writer.write_eof()
        assert await peer.is_closed()
        assert server.connections == 0


@pytest.mark.parametrize(
    ("limit", "sent"), [("header_s", b"GET / HT"), ("body_s", get("/", "Content-Length: 5", method="POST") + b"x")]
)
async def test_slow_headers_and_slow_bodies_are_408(limit: str, sent: bytes) -> None:
    async with serving(**{limit: 0.1}) as (_, connect):
        peer = await connect()
        peer.send(sent)
        assert (await peer.answer())[0] == 408


async def test_idle_connections_close() -> None:
    async with serving(idle_s=0.1) as (_, connect):
        assert await (await connect()).is_closed()


async def test_a_large_body_on_a_slow_line_gets_the_time_that_it_needs() -> None:
    async with serving(body_s=0.1, body_rate=20) as (_, connect):  # 60 s for 1200 bytes
        peer = await connect()
        peer.send(get("/", "Content-Length: 1200", method="POST"))
        for _ in range(12):
            await asyncio.sleep(0.05)
            peer.send(b"x" * 100)
        assert (await peer.answer())[0] == 200


async def test_one_connection_too_many_is_told_so() -> None:
    async with serving(connections=1) as (_, connect):
        first, second = await connect(), await connect()
        status, headers, _ = await second.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        assert await second.is_closed()
        first.send(get("/"))
        assert (await first.answer())[0] == 200


async def test_a_client_that_reads_nothing_stops_being_read_and_is_dropped() -> None:
    served = 0

    async def large(_: Request) -> Response:
        nonlocal served
        served += 1
        return Response(200, b"x" * 1_000_000)

    async with serving(large, write_s=0.3) as (server, connect):
        peer = await connect()
        peer.writer.transport.pause_reading()
        peer.send(get("/") * 2000)
        async with asyncio.timeout(60):
            while not served or server.connections:
                await asyncio.sleep(0.01)
        assert served < 100


async def test_draining_answers_what_was_taken_and_refuses_new_connections() -> None:
    release, taken = asyncio.Event(), asyncio.Semaphore(0)

    async def slow(request: Request) -> Response:
        if request.path in ("/a", "/b"):
            taken.release()
            await release.wait()
        return await echo(request)

    async with serving(slow) as (server, connect):
        busy, idle, partial = await connect(), await connect(), await connect()
        busy.send(get("/a") + get("/b"))
        idle.send(get("/first"))
        partial.send(get("/first") + get("/", "Content-Length: 2", method="POST") + b"x")
        assert [(await peer.answer())[2] for peer in (idle, partial)] == [b"GET /first "] * 2
        for _ in range(2):
            await taken.acquire()
        port = server.port
        draining = asyncio.create_task(server.drain(60))
        assert await idle.is_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        partial.send(b"y")
        release.set()
        answers = [await busy.answer(), await busy.answer(), await partial.answer()]
        assert [answer[2] for answer in answers] == [b"GET /a ", b"GET /b ", b"POST / xy"]
        assert answers[1][1]["connection"] == "close"
        await asyncio.wait_for(draining, 60)
        assert server.connections == 0


async def test_draining_gives_up_on_what_takes_too_long() -> None:
    begun = asyncio.Event()

    async def endless(_: Request) -> Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(endless) as (server, connect):
        peer = await connect()
        peer.send(get("/"))
        await begun.wait()
        await asyncio.wait_for(server.drain(0.1), 60)
        assert server.connections == 0


async def test_a_handler_that_raises_at_once_is_answered_and_so_is_what_follows() -> None:
    def broken(request: Request) -> object:
        if request.path == "/broken":
            raise RuntimeError("secret")
        return echo(request)

    async with serving(broken, pipelined=2) as (_, connect):  # type: ignore[arg-type]  # breaks the contract
        peer = await connect()
        peer.send(get("/broken") + get("/a") + get("/broken") + get("/b"))
        assert [(await peer.answer())[0] for _ in range(4)] == [500, 200, 500, 200]


async def test_a_port_in_use_is_told_in_two_parts() -> None:
    async with serving() as (server, _):
        with pytest.raises(Unavailable, match=f"port {server.port} of 127.0.0.1 is in use") as caught:
            await HttpServer(echo, port=server.port).start()
        assert (caught.value.exit_code, bool(caught.value.hint)) == (3, True)


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot listen on"):
        await HttpServer(echo, host="192.0.2.1", port=0).start()


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "does not wait"])
async def test_continue_comes_after_the_answers_before_it_or_not_at_all(waits: bool) -> None:
    release = asyncio.Event()

    async def slow(request: Request) -> Response:
        if request.path == "/slow":
            await release.wait()
        return Response(200, request.path.encode())

    async with serving(slow) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" + head + (b"" if waits else b"xy"))
        await asyncio.sleep(0)
        release.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"/slow")
        if waits:
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"xy")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"/body")
        writer.write(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200"), "and nothing in between"
        writer.close()
