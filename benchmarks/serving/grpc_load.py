"""gRPC load with what real clients vary: another deadline and another request id in every call.

Frames are made before the clock starts: header blocks by an encoder that puts each new `grpc-timeout` into the dynamic table, as
gRPC's own client does, so no cache of header blocks can help. One call at a time on each connection.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

import hpack
import uvloop

from serving.load import Cell, Failed
from serving.process import LOAD_CORE, Server

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_PATH = "/inference.GRPCInferenceService/ModelInfer"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_WINDOW_SIZE = 1 << 30


@dataclass(frozen=True, slots=True)
class GrpcAsk:
    """One call.

    Attributes:
        message: the request with a given id.
        check: whether an answer is what the engine computes, and carries the id.
    """

    message: Callable[[str], bytes]
    check: Callable[[bytes, str], bool]


def load(server: Server, ask: GrpcAsk, *, connections: int = 64, calls: int = 600) -> Cell:
    """`calls` calls on each connection; every hundredth answer is compared.

    Raises:
        Failed: a call failed, or an answer was wrong.
    """
    scripts = [_script(server.grpc_port, ask, number, calls) for number in range(connections)]
    server.settle()
    before = server.cpu_s()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        seconds, latencies, checked = uvloop.run(_play(server.grpc_port, ask, scripts))
    finally:
        os.sched_setaffinity(0, cores)
    server.settle()
    spent = server.cpu_s() - before
    latencies.sort()
    total = len(latencies)
    p50, p99 = latencies[total // 2] * 1e3, latencies[total * 99 // 100] * 1e3
    return Cell(spent / total * 1e6, total / seconds, p50, p99, total, checked)


async def _play(port: int, ask: GrpcAsk, scripts: list[list[bytes]]) -> tuple[float, list[float], int]:
    loop = asyncio.get_running_loop()
    clients = [_Client(ask, script, number) for number, script in enumerate(scripts)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
    await asyncio.sleep(0.3)
    started = loop.time()
    for client in clients:
        client.next()
    await asyncio.gather(*(client.ended for client in clients))
    seconds = loop.time() - started
    for client in clients:
        client.transport.close()
    return seconds, [taken for client in clients for taken in client.latencies], sum(client.checked for client in clients)


class _Client(asyncio.Protocol):
    """One connection that plays its script."""

    transport: asyncio.Transport

    def __init__(self, ask: GrpcAsk, script: list[bytes], number: int) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies: list[float] = []
        self.checked = 0
        self._ask = ask
        self._script = script
        self._number = number
        self._buffer = b""
        self._answer = b""
        self._sent = 0.0
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        settings = _frame(_SETTINGS, 0, 0, struct.pack("!HI", 4, _WINDOW_SIZE))
        self.transport.write(_PREFACE + settings + _frame(_WINDOW, 0, 0, struct.pack("!I", _WINDOW_SIZE)))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(Failed(f"the server closed a connection after {len(self.latencies)} calls: {exc}"))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        at, size = 0, len(buffer)
        while size - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if size - at < 9 + length:
                break
            self._frame(buffer[at + 3], buffer[at + 4], buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self._buffer = buffer[at:]

    def next(self) -> None:
        done = len(self.latencies)
        if done == len(self._script):
            self.ended.set_result(None)
            return
        self._answer = b""
        self._sent = self._loop.time()
        self.transport.write(self._script[done])

    def _frame(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _DATA:
            self._answer += payload
        elif kind == _SETTINGS and not flags & 1:
            self.transport.write(_frame(_SETTINGS, 1, 0, b""))
        elif kind == _PING and not flags & 1:
            self.transport.write(_frame(_PING, 1, 0, payload))
        elif kind in (_RST, _GOAWAY):
            self._fail(f"the server sent a frame of type {kind}: {payload!r}")
        if kind in (_DATA, _HEADERS) and flags & 1:
            self._answered()

    def _answered(self) -> None:
        done = len(self.latencies)
        self.latencies.append(self._loop.time() - self._sent)
        if not self._answer:
            self._fail("a call was answered without a message")
        elif done % 100 == 0:
            self.checked += 1
            if not self._ask.check(self._answer[5:], _name(self._number, done)):
                self._fail(f"a wrong answer: {self._answer!r}")
        if not self.ended.done():
            self.next()

    def _fail(self, message: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(Failed(message))


def _script(port: int, ask: GrpcAsk, connection: int, calls: int) -> list[bytes]:
    encoder = hpack.Encoder()
    frames = []
    for call in range(calls):
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", _PATH),
            (":authority", f"127.0.0.1:{port}"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "inferloop-bench"),
            ("grpc-accept-encoding", "identity, deflate, gzip"),
            ("grpc-timeout", f"{10_000_000 + call * 64 + connection}u"),
        ]
        message = ask.message(_name(connection, call))
        stream = 2 * call + 1
        body = _frame(_DATA, 1, stream, struct.pack("!BI", 0, len(message)) + message)
        frames.append(_frame(_HEADERS, 4, stream, encoder.encode(headers)) + body)
    return frames


def _name(connection: int, call: int) -> str:
    return f"{connection}-{call}"


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
