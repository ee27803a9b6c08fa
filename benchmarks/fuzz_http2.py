"""Feeds an HTTP/2 connection bytes that no client should send.

Each input is a stream of bytes after the preface, cut at places that the input itself chooses. Whatever comes, the connection may
answer, end with GOAWAY or close; it may not raise, keep more than its limits allow, leave tasks behind, or take long.

    python benchmarks/fuzz_http2.py --seconds 60            # with atheris where it is installed, else with random mutation
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

try:
    import atheris

    with atheris.instrument_imports(include=["inferloop.net"]):
        import inferloop.net.http2.connection  # noqa: F401 - instrumented before the imports below find it
except ImportError:
    atheris = None

from inferloop.net.grpc_call import Call, Method
from inferloop.net.http2 import blocks, frames
from inferloop.net.http2.connection import Http2Connection
from inferloop.net.http2.deadlines import Deadlines
from inferloop.net.http2.limits import Http2Limits

LIMITS = Http2Limits(
    message_bytes=20_000, buffered_bytes=100_000, header_bytes=2_000, frame_bytes=16_384, window_bytes=70_000,
    connection_window_bytes=140_000, streams=20, resets=50, control=200,
)  # fmt: skip
HELD_BYTES = LIMITS.buffered_bytes + 4 * LIMITS.header_bytes + 4 * LIMITS.frame_bytes
SLOWEST_S = 2.0
WRITTEN_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Way:
    """A method."""

    handle: Callable[[Call], Awaitable[None]]
    streams: bool
    unary: Callable[[Call, bytes], Awaitable[bytes]] | None


async def same(call: Call, message: bytes) -> bytes:
    """The request."""
    call.set_trailers({"x-size": str(len(message))})
    return message


async def later(_call: Call, message: bytes) -> bytes:
    """The request, a turn of the loop later."""
    await asyncio.sleep(0)
    return message


async def echo(call: Call) -> None:
    """Each message."""
    while (message := await call.recv()) is not None:
        await call.send(message)


WAYS: dict[str, Method] = {"/a": Way(echo, False, same), "/b": Way(echo, False, later), "/c": Way(echo, True, None)}


class Transport(asyncio.Transport):
    """Takes bytes as a socket would; sometimes it is full."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.closing = False

    def write(self, data: bytes) -> None:
        """See `asyncio.Transport`."""
        if self.closing:
            raise RuntimeError("written after close")
        self.written += len(data)

    def is_closing(self) -> bool:
        """See `asyncio.Transport`."""
        return self.closing

    def close(self) -> None:
        """See `asyncio.Transport`."""
        self.closing = True

    abort = close
    write_eof = close

    def can_write_eof(self) -> bool:
        """See `asyncio.Transport`."""
        return True

    def get_write_buffer_size(self) -> int:
        """See `asyncio.Transport`."""
        return 0


class World:
    """Who holds the connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = LIMITS
        self.deadlines = Deadlines(loop)
        self.now = loop.time()
        self.tasks: set[asyncio.Task[None]] = set()

    def opened(self, _connection: Http2Connection) -> bool:
        """See `Owner`."""
        return True

    def closed(self, _connection: Http2Connection) -> None:
        """See `Owner`."""


class Raised(logging.Handler):
    """The connection catches its own defects and logs them; here they count."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise what was logged."""
        if record.exc_info and record.exc_info[1]:
            raise record.exc_info[1]
        raise AssertionError(record.getMessage())


LOOP = asyncio.new_event_loop()
_SETTINGS = frames.settings({})


async def feed(data: bytes) -> None:
    """One input."""
    world = World(LOOP)
    connection = Http2Connection(WAYS.get, world, LOOP)
    transport = Transport()
    connection.connection_made(transport)
    start = frames.PREFACE + (_SETTINGS if data[:1] != b"\0" else b"")
    cut = data[0] % len(start) if data else 0
    connection.data_received(start[:cut])
    connection.data_received(start[cut:])
    chance = random.Random(data[:8])
    at = 1
    while at < len(data) and not transport.closing:
        size = chance.choice((1, 3, 9, 20, 100, 1000, 20_000))
        connection.data_received(data[at : at + size])
        at += size
        if chance.random() < 0.2:
            chance.choice((connection.pause_writing, connection.resume_writing))()
        if chance.random() < 0.2:
            await asyncio.sleep(0)
        if chance.random() < 0.02:
            world.now += chance.choice((1, 20, 100))
            connection.check_time(world.now)
        check(connection, transport)
    if chance.random() < 0.3:
        connection.drain()
    connection.connection_lost(None)
    for _ in range(20):
        if not connection.working:
            break
        await asyncio.sleep(0)
    assert connection.working == 0, "a handler is left"
    assert connection.held_bytes == 0, "bytes are left"
    world.deadlines.close()


def check(connection: Http2Connection, transport: Transport) -> None:
    """What must hold at any time."""
    assert connection.held_bytes <= HELD_BYTES
    assert connection.streams <= LIMITS.streams
    assert connection.working <= LIMITS.streams
    assert transport.written < WRITTEN_BYTES


def one(data: bytes) -> None:
    """Feed one input, and look at the clock."""
    start = time.process_time()
    LOOP.run_until_complete(feed(data))
    took = time.process_time() - start
    assert took < SLOWEST_S, f"{took:.1f} s for {len(data)} bytes"


def request(stream: int, path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """HEADERS of a call."""
    block = b"\x83\x86" + blocks.literal(4, path) + blocks.literal(31, b"application/grpc")
    for name, value in more:
        block += blocks.literal(name, value)
    return frames.head(len(block), frames.HEADERS, frames.END_HEADERS, stream) + block


def message(stream: int, body: bytes, flags: int = frames.END_STREAM, compressed: int = 0) -> bytes:
    """DATA with one message."""
    data = bytes((compressed,)) + len(body).to_bytes(4, "big") + body
    return frames.head(len(data), frames.DATA, flags, stream) + data


def seeds() -> list[bytes]:
    """Inputs that reach the far corners."""
    call = request(1, b"/a") + message(1, b"hello")
    slow = request(1, b"/b", (b"grpc-timeout", b"1u")) + message(1, b"x" * 900)
    many = b"".join(request(k, b"/c", (b"x-bin", b"AAEC"), (b"k", b"v")) + message(k, b"m" * k, 0) for k in range(1, 30, 2))
    gzipped = request(1, b"/a", (b"grpc-encoding", b"deflate")) + message(1, b"x\x9cKL\x04\x00\x02I\x01$", compressed=1)
    narrow = frames.settings({4: 1}) + request(1, b"/c") + message(1, b"abc") + frames.window_update(1, 2) * 5
    rude = frames.ping(b"12345678") * 3 + frames.rst_stream(1, 8) + frames.goaway(0, 0) + frames.window_update(0, 100)
    kept = b"\x83\x86" + b"\x44\x02/a" + b"\x5f\x10application/grpc" + b"\x40\x01k\x01v\x3f\xe1\x1f"
    table = frames.head(len(kept), 1, 4, 1) + kept + message(1, b"q")
    padded = frames.head(10, 0, 0x9, 1) + b"\x04\0\0\0\0\0" + b"\0" * 4
    cut = request(1, b"/a")
    continued = frames.head(4, 1, 0, 1) + cut[9:13] + frames.head(len(cut) - 13, 9, 4, 1) + cut[13:] + message(1, b"")
    huffman = b"\x83\x86\x44\x02/c\x5f\x8b\x1d\x75\xd0\x62\x0d\x26\x3d\x4c\x4d\x65\x64"
    coded = frames.head(len(huffman), 1, 4, 1) + huffman
    inputs = (call, slow, many, gzipped, narrow, call + rude, table, request(1, b"/a") + padded, continued, coded)
    return [b"\1" + data for data in inputs]


def mutate(data: bytes, chance: random.Random, pool: list[bytes]) -> bytes:
    """One input from others."""
    out = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(6):
            case 0 if out:
                out[at % len(out)] = chance.randrange(256)
            case 1:
                del out[at : at + chance.randrange(20)]
            case 2:
                out[at:at] = chance.randbytes(chance.randrange(20))
            case 3:
                other = chance.choice(pool)
                start = chance.randrange(len(other) + 1)
                out[at:at] = other[start : start + chance.randrange(200)]
            case 4 if out:
                out[at % len(out)] ^= 1 << chance.randrange(8)
            case _:
                out += out[at : at + 60] * chance.randrange(1, 30)
    return bytes(out[:60_000])


def mutation_loop(seconds: float, seed: int) -> None:
    """Without atheris: mutate, and keep what reaches lines that nothing reached before."""
    chance = random.Random(seed)
    pool = seeds()
    lines: set[tuple[str, int]] = set()
    runs = 0
    end = time.monotonic() + seconds
    said = time.monotonic()
    while time.monotonic() < end:
        data = mutate(chance.choice(pool), chance, pool)
        before = len(lines)
        traced = runs % 4 == 0  # tracing is ten times slower
        if traced:
            sys.settrace(tracer(lines))
        try:
            one(data)
        except BaseException:
            print("FAILED", data.hex(), flush=True)
            raise
        finally:
            sys.settrace(None)
        runs += 1
        if len(lines) > before:
            pool.append(data)
        if time.monotonic() - said > 60:
            said = time.monotonic()
            print(f"runs {runs}, inputs {len(pool)}, lines {len(lines)}", flush=True)
    print(f"clean: runs {runs}, inputs {len(pool)}, lines {len(lines)}")


def tracer(lines: set[tuple[str, int]]) -> Callable[..., object]:
    """Collects the lines of the transport."""

    def local(frame: object, event: str, _arg: object) -> object:
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def entered(frame: object, _event: str, _arg: object) -> object:
        return local if "/net/" in frame.f_code.co_filename else None

    return entered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", default="", help="where atheris keeps its inputs")
    options = parser.parse_args()
    logging.getLogger("inferloop").addHandler(Raised(logging.WARNING))
    logging.raiseExceptions = True
    LOOP.set_exception_handler(
        lambda _loop, context: (_ for _ in ()).throw(context.get("exception") or AssertionError(str(context)))
    )
    asyncio.set_event_loop(LOOP)
    for data in seeds():
        one(data)
    if atheris is None:
        mutation_loop(options.seconds, options.seed)
        return
    corpus = [options.corpus] if options.corpus else []
    for index, data in enumerate(seeds() if corpus else ()):
        (Path(options.corpus) / f"seed-{index}").write_bytes(data)
    atheris.Setup([sys.argv[0], f"-max_total_time={options.seconds}", "-max_len=20000", "-timeout=20", *corpus], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
