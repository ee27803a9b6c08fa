"""Clients that do everything wrong, with good ones in between; counts what each kind met."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable

WAIT_S = 60.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Chaos:
    """A seeded mix of requests against one server.

    Attributes:
        sent: how many of each kind.
        met: how often each kind was answered, refused or dropped, as it must be.
        wrong: what should not have happened, a line each.
    """

    def __init__(self, port: int, *, path: str, body: bytes, oversize: int, grpc_port: int | None = None, seed: int = 7) -> None:
        """Set up.

        Args:
            port: of HTTP.
            path: where a valid request goes.
            body: of a valid request.
            oversize: more bytes than a body may have.
            grpc_port: also garbage for gRPC.
            seed: the same mix again.
        """
        self.sent: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._port = port
        self._grpc_port = grpc_port
        self._path = path
        self._body = body
        self._oversize = oversize
        self._random = random.Random(seed)
        self._kinds: dict[str, Callable[[], Awaitable[bool]]] = {
            "valid": self._valid,
            "garbage": self._garbage,
            "half_open": self._half_open,
            "oversized": self._oversized,
            "slow": self._slow,
            "cancelled": self._cancelled,
            "wrong_binary": self._wrong_binary,
            "pipelined": self._pipelined,
            "deaf": self._deaf,
        }
        if grpc_port is not None:
            self._kinds |= {"grpc_garbage": self._grpc_garbage, "grpc_half_open": self._grpc_half_open}

    async def run(self, requests: int, *, at_once: int = 64) -> None:
        """Send so many, every kind in turn, in a random order."""
        names = [list(self._kinds)[number % len(self._kinds)] for number in range(requests)]
        self._random.shuffle(names)
        queue = iter(names)

        async def client() -> None:
            for name in queue:
                await self._one(name)

        await asyncio.gather(*(client() for _ in range(at_once)))

    async def _one(self, name: str) -> None:
        self.sent[name] += 1
        try:
            good = await asyncio.wait_for(self._kinds[name](), WAIT_S)
        except (ConnectionError, asyncio.IncompleteReadError):
            good = name != "valid"  # a server may drop who misbehaves
        except TimeoutError:
            good = False
        if good:
            self.met[name] += 1
        else:
            self.wrong.append(f"{name}: not as it must be")

    def _head(self, length: int, *headers: str) -> bytes:
        lines = [f"POST {self._path} HTTP/1.1", "Host: h", f"Content-Length: {length}", *headers, "", ""]
        return "\r\n".join(lines).encode()

    async def _ask(self, data: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(data)
            return await _status(reader)
        finally:
            writer.close()

    async def _valid(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(self._head(len(self._body)) + self._body)
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            answer = json.loads(await reader.readexactly(size))
            return head.startswith(b"HTTP/1.1 200") and bool(answer["outputs"])
        finally:
            writer.close()

    async def _garbage(self) -> bool:
        return await self._ask(self._random.randbytes(self._random.randrange(20, 400)) + b"\r\n\r\n") == 400

    async def _half_open(self) -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        whole = self._head(len(self._body)) + self._body
        writer.write(whole[: self._random.randrange(1, len(whole))])
        await asyncio.sleep(self._random.random() * 0.02)
        _leave(writer, reset=self._random.random() < 0.5)
        return True

    async def _oversized(self) -> bool:
        if self._random.random() < 0.5:
            return await self._ask(self._head(self._oversize) + b"x" * 1000) == 413
        return await self._ask(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * 20_000 + b"\r\n") == 431

    async def _slow(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            whole = self._head(len(self._body)) + self._body
            step = len(whole) // 5 + 1
            for start in range(0, len(whole), step):
                writer.write(whole[start : start + step])
                await asyncio.sleep(0.005)
            return await _status(reader) == 200
        finally:
            writer.close()

    async def _cancelled(self) -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(self._head(len(self._body)) + self._body)
        await asyncio.sleep(self._random.random() * 0.003)
        _leave(writer, reset=True)
        return True

    async def _wrong_binary(self) -> bool:
        length = self._random.choice(["-1", "x", "999999999", "3", "99999999999999999999999"])
        head = self._head(len(self._body), f"Inference-Header-Content-Length: {length}")
        return await self._ask(head + self._body) == 400

    async def _pipelined(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            count = 40
            writer.write(b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n" * count)
            for _ in range(count):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
            return True
        finally:
            writer.close()

    async def _deaf(self) -> bool:
        """Asks for much and reads nothing."""
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.transport.pause_reading()
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n" * 20)
        await asyncio.sleep(0.02)
        _leave(writer, reset=True)
        return True

    async def _grpc_garbage(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._grpc_port)
        writer.write(self._random.choice([b"", PREFACE]) + self._random.randbytes(300))
        while await reader.read(65536):  # until the server closes
            pass
        writer.close()
        return True

    async def _grpc_half_open(self) -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", self._grpc_port)
        writer.write(PREFACE[: self._random.randrange(1, len(PREFACE))])
        await asyncio.sleep(self._random.random() * 0.01)
        _leave(writer, reset=True)
        return True


async def _status(reader: asyncio.StreamReader) -> int:
    return int((await reader.readuntil(b"\r\n"))[9:12])


def _leave(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    writer.close()
