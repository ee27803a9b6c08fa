"""CPU time of the HTTP/2 transport alone, a request: a method that answers with a constant, over loopback.

    python benchmarks/load_http2.py                    # equal header blocks, then different ones

The load is a process of its own that sends prebuilt frames and checks the count and the bytes of all answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import uvloop

from inferloop.net.grpc_call import Call
from inferloop.net.http2 import blocks, frames
from inferloop.net.http2.server import Http2Server

REQUEST = b"x" * 64
ANSWER = b"y" * 46
PATH = b"/inference.GRPCInferenceService/ModelInfer"
AGENT = b"grpc-python/1.85.1 grpc-c/58.0.0 (linux; chttp2)"


@dataclass(frozen=True, slots=True)
class Way:
    """A unary method."""

    handle: Callable[[Call], Awaitable[None]]
    unary: Callable[[Call, bytes], Awaitable[bytes]]
    streams: bool = False


async def constant(_call: Call, _message: bytes) -> bytes:
    """The same answer to all."""
    return ANSWER


async def never(_call: Call) -> None:
    """Unary methods have their short way."""


class Client(asyncio.Protocol):
    """One connection that keeps a number of calls open, each new one as an old one ends."""

    def __init__(self, end: float, open_calls: int, different: bool) -> None:
        self.end = end
        self.open_calls = open_calls
        self.different = different
        self.next = 1
        self.answers = 0
        self.bytes = 0
        self.rest = b""
        self.done = asyncio.get_running_loop().create_future()
        self.kept = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the calls."""
        self.transport = transport
        wide = frames.settings({frames.INITIAL_WINDOW_SIZE: 2**30}) + frames.window_update(0, 2**30)
        transport.write(frames.PREFACE + wide + b"".join(self.request() for _ in range(self.open_calls)))

    def request(self) -> bytes:
        """One call: as grpcio sends it, names and constant values in the table after the first."""
        stream = self.next
        self.next += 2
        if not self.kept:
            block = b"\x83\x86" + b"".join(
                b"\x40" + blocks.literal(name, value)[1:]
                for name, value in (
                    (b":path", PATH), (b":authority", b"127.0.0.1:8001"), (b"te", b"trailers"),
                    (b"content-type", b"application/grpc"), (b"user-agent", AGENT),
                    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
                )
            )  # fmt: skip
            self.kept = True
        else:
            block = b"\x83\x86\xc3\xc2\xc1\xc0\xbf\xbe"
        if self.different:
            block += blocks.literal(b"grpc-timeout", b"%du" % (30_000_000 + stream))
            block += blocks.literal(b"x-request", b"id-%d" % stream)
        data = b"\0" + frames.U32.pack(len(REQUEST)) + REQUEST
        head = frames.head(len(block), frames.HEADERS, frames.END_HEADERS, stream)
        return head + block + frames.head(len(data), frames.DATA, frames.END_STREAM, stream) + data

    def data_received(self, data: bytes) -> None:
        """Count answers, and ask again."""
        data = self.rest + data
        at = 0
        ended = 0
        while len(data) - at >= frames.HEAD_BYTES:
            length = int.from_bytes(data[at : at + 3], "big")
            kind = data[at + 3]
            if len(data) < at + frames.HEAD_BYTES + length:
                break
            if kind == frames.DATA:
                self.bytes += length
            elif kind == frames.HEADERS and data[at + 4] & frames.END_STREAM:
                ended += 1
            elif kind in (frames.GOAWAY, frames.RST_STREAM):
                self.done.set_exception(RuntimeError(f"frame {kind}: {data[at + 9 : at + 9 + length]!r}"))
                return
            at += frames.HEAD_BYTES + length
        self.rest = data[at:]
        self.answers += ended
        if time.monotonic() < self.end:
            if ended:
                self.transport.write(b"".join(self.request() for _ in range(ended)))
        elif self.answers == (self.next - 1) // 2 and not self.done.done():
            self.done.set_result(None)


async def load(port: int, connections: int, calls: int, seconds: float, different: bool) -> None:
    loop = asyncio.get_running_loop()
    end = time.monotonic() + seconds
    clients = [
        (await loop.create_connection(lambda: Client(end, calls, different), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), seconds + 20)
    answers = sum(client.answers for client in clients)
    print(json.dumps({"answers": answers, "bytes": sum(client.bytes for client in clients)}))
    for client in clients:
        client.transport.close()


def cpu() -> float:
    """Seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def cell(server: Http2Server, connections: int, calls: int, seconds: float, different: bool) -> dict[str, float]:
    """One measurement."""
    arguments = ["--load", str(server.port), "-c", str(connections), "-m", str(calls), "--seconds", str(seconds)]
    before = cpu()
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, *(["--different"] if different else []), stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    used = cpu() - before
    found = json.loads(out)
    assert found["bytes"] == found["answers"] * (len(ANSWER) + 5), "answers are wrong"
    return {"us": used / found["answers"] * 1e6, "per_s": found["answers"] / seconds}


async def measure(options: argparse.Namespace) -> None:
    async with Http2Server(lambda _: Way(never, constant), port=0) as server:
        for different in (False, True):
            for _ in range(options.runs):
                found = await cell(server, options.connections, options.calls, options.seconds, different)
                name = "different" if different else "equal"
                print(f"{name:10} c={options.connections} m={options.calls}: {found['us']:6.1f} us CPU, {found['per_s']:8.0f}/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--connections", type=int, default=64)
    parser.add_argument("-m", "--calls", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--different", action="store_true")
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        uvloop.run(load(options.load, options.connections, options.calls, options.seconds, options.different))
    else:
        uvloop.run(measure(options))


if __name__ == "__main__":
    main()
