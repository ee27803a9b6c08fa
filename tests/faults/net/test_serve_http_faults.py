"""What clients and handlers do wrong: the loop and the neighbours live on."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import struct

import pytest

from inferloop.net.http import Request, Response
from inferloop.net.http_server import HttpServer
from inferloop.net.limits import HttpLimits

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


async def ask(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET.replace(b"Host", b"Connection: close\r\nHost"))
    data = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return data


async def test_a_handler_that_raises_is_a_500_without_detail(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: Request) -> Response:
        raise RuntimeError("secret")

    with caplog.at_level(logging.CRITICAL):
        async with HttpServer(fail, port=0) as server:
            answer = await ask(server.port)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer


async def test_a_client_that_leaves_cancels_its_work_and_no_other() -> None:
    release, left = asyncio.Event(), asyncio.Event()
    begun = asyncio.Semaphore(0)
    cancelled = 0

    async def wait(_: Request) -> Response:
        nonlocal cancelled
        begun.release()
        try:
            await release.wait()
        except asyncio.CancelledError:
            cancelled += 1
            left.set()
            raise
        return Response(200, b"there")

    async with HttpServer(wait, port=0) as server:
        peers = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(8)]
        for _, writer in peers:
            writer.write(GET)
        for _ in peers:
            await begun.acquire()
        peers[3][1].transport.abort()
        await asyncio.wait_for(left.wait(), 60)  # the fault hit while all eight were in work
        release.set()
        rest = [await asyncio.wait_for(reader.readuntil(b"there"), 60) for reader, _ in peers[:3] + peers[4:]]
        assert (len(rest), cancelled) == (7, 1)
        for _, writer in peers:
            writer.close()


async def test_a_client_that_resets_the_connection_before_its_answer_harms_nobody() -> None:
    begun, finished = asyncio.Semaphore(0), asyncio.Semaphore(0)
    held = True

    async def slow(_: Request) -> Response:
        begun.release()
        try:
            if held:
                await asyncio.Event().wait()
        finally:
            finished.release()
        return Response(200)

    async with HttpServer(slow, port=0) as server:
        for _ in range(5):
            peer = socket.create_connection(("127.0.0.1", server.port))
            peer.sendall(GET)
            await asyncio.wait_for(begun.acquire(), 60)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            await asyncio.wait_for(finished.acquire(), 60)
        held = False
        assert (await ask(server.port)).startswith(b"HTTP/1.1 200 ")


async def test_garbage_half_requests_and_floods_leave_a_server_that_answers() -> None:
    async def answer(_: Request) -> Response:
        return Response(200)

    chance = random.Random(7)
    kinds = [
        lambda: os.urandom(chance.randrange(1, 400)),
        lambda: GET[: chance.randrange(1, len(GET))],
        lambda: GET * chance.randrange(1, 200),
        lambda: b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 5000,
        lambda: b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * 5000,
    ]

    async def client(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(chance.choice(kinds)())
        await asyncio.sleep(chance.random() * 0.02)
        if chance.random() < 0.5:
            writer.transport.abort()
        writer.close()

    limits = HttpLimits(body_bytes=10_000, header_bytes=4_000, linger_s=0.2, header_s=0.3)
    async with HttpServer(answer, port=0, limits=limits) as server:
        for _ in range(10):
            await asyncio.gather(*(client(server.port) for _ in range(50)))
        assert (await ask(server.port)).startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(60):
            while server.connections:
                await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) == 1
