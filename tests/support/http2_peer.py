"""A raw HTTP/2 client: sends what the test says, right or wrong, and collects what comes back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Self

import hpack

from inferloop.net.http2 import blocks, frames

Fields = list[tuple[str, str]]


def block(path: str, *more: tuple[bytes, bytes]) -> bytes:
    """A request's header block; enters nothing into a table."""
    start = (
        b"\x83\x86" + blocks.literal(1, b"localhost") + blocks.literal(4, path.encode()) + blocks.literal(31, b"application/grpc")
    )
    return start + b"".join(blocks.literal(name, value) for name, value in more)


def request(stream: int, path: str, *more: tuple[bytes, bytes], flags: int = frames.END_HEADERS) -> bytes:
    """HEADERS of a call of `/test.Echo/`."""
    data = block(f"/test.Echo/{path}", *more)
    return frames.head(len(data), frames.HEADERS, flags, stream) + data


def framed(body: bytes, compressed: int = 0) -> bytes:
    """A message with its prefix."""
    return bytes((compressed,)) + len(body).to_bytes(4, "big") + body


def data(stream: int, content: bytes, flags: int = frames.END_STREAM) -> bytes:
    """DATA with any content."""
    return frames.head(len(content), frames.DATA, flags, stream) + content


def call(stream: int, path: str, body: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A whole unary call."""
    return request(stream, path, *more) + data(stream, framed(body))


class Peer:
    """One connection. `async with Peer(port) as peer:` sends the preface and `settings`; a mute one acknowledges nothing."""

    def __init__(
        self, port: int, settings: dict[int, int] | None = None, start: bytes | None = None, *, mute: bool = False
    ) -> None:
        self._port = port
        self._start = frames.PREFACE + frames.settings(settings or {}) if start is None else start
        self._mute = mute
        self._decoder = hpack.Decoder()
        self.bodies: dict[int, bytes] = defaultdict(bytes)
        self.headers: dict[int, list[Fields]] = defaultdict(list)
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.goaways: list[tuple[int, int]] = []
        self.pongs: list[bytes] = []
        self.pings = 0
        self.granted: dict[int, int] = defaultdict(int)
        self.largest = 0
        self.closed = False

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self._start)
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.transport.abort()

    def send(self, *parts: bytes) -> None:
        """Write at once."""
        self._writer.write(b"".join(parts))

    def hang_up(self) -> None:
        """Reset the connection."""
        self._writer.transport.abort()

    def pause(self) -> None:
        """Read no more."""
        self._reading.cancel()
        self._writer.transport.pause_reading()

    async def answer(self, stream: int) -> bytes:
        """The one message of a stream that ended well."""
        await self.until(lambda: stream in self.ended)
        assert self.trailers(stream)["grpc-status"] == "0", self.trailers(stream)
        body = self.bodies[stream]
        assert int.from_bytes(body[1:5], "big") == len(body) - 5
        return body[5:]

    async def status(self, stream: int) -> str:
        """`grpc-status` of a stream."""
        await self.until(lambda: stream in self.ended)
        return self.trailers(stream)["grpc-status"]

    def trailers(self, stream: int) -> dict[str, str]:
        """The last header list of a stream."""
        return dict(self.headers[stream][-1])

    async def goaway(self) -> int:
        """The code of the GOAWAY that ends the connection, once it is closed."""
        await self.until(lambda: self.closed)
        return self.goaways[-1][1]

    async def until(self, condition: object) -> None:
        """Wait for a state."""
        async with asyncio.timeout(60):
            while not condition():  # type: ignore[operator]
                await asyncio.sleep(0.002)

    async def settled(self) -> None:
        """All that was sent before has been read by the server."""
        mark = b"mark%04d" % len(self.pongs)
        self.send(frames.ping(mark))
        await self.until(lambda: mark in self.pongs)

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._take(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed = True

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (frames.PING, frames.SETTINGS):
            self._reply(kind, flags, payload)
            return
        if kind == frames.DATA:
            self.bodies[stream] += payload
            self.largest = max(self.largest, len(payload))
        elif kind == frames.HEADERS:
            self.headers[stream].append([(str(n), str(v)) for n, v in self._decoder.decode(payload)])
        elif kind == frames.RST_STREAM:
            self.resets[stream] = int.from_bytes(payload, "big")
        elif kind == frames.GOAWAY:
            self.goaways.append((int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")))
        elif kind == frames.WINDOW_UPDATE:
            self.granted[stream] += int.from_bytes(payload, "big")
        if kind in (frames.DATA, frames.HEADERS) and flags & frames.END_STREAM:
            self.ended.add(stream)

    def _reply(self, kind: int, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            self.pongs.append(payload)
        elif not self._mute:
            self.pings += kind == frames.PING
            self.send(frames.ping(payload, ack=True) if kind == frames.PING else frames.SETTINGS_ACK)
