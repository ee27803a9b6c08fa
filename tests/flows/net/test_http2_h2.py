"""The transport with `h2`, an implementation of RFC 9113 that nobody here wrote: what it sends we take, what we send it takes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest

from inferloop.net.http2.limits import Http2Limits
from inferloop.net.http2.server import Http2Server
from support.calls import Calls
from support.http2_peer import framed

INITIAL = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE


class H2Client:
    """One connection. It raises where we break a rule, so a test fails for what `h2` does not accept."""

    def __init__(self, port: int, *, acknowledges: bool = True) -> None:
        self._port = port
        self._acknowledges = acknowledges
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.bodies: dict[int, bytes] = defaultdict(bytes)
        self.trailers: dict[int, dict[bytes, bytes]] = {}
        self.ended: set[int] = set()
        self.settled = 0
        self.failed: Exception | None = None

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.state.initiate_connection()
        self.flush()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.transport.abort()
        assert self.failed is None, self.failed

    def flush(self) -> None:
        """Send what `h2` has to send."""
        self._writer.write(self.state.data_to_send())

    def open(self, path: str, *more: tuple[str, str]) -> int:
        """HEADERS of a call."""
        stream: int = self.state.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":path", f"/test.Echo/{path}"), (":authority", "localhost")]
        self.state.send_headers(stream, [*head, ("te", "trailers"), ("content-type", "application/grpc"), *more])
        return stream

    def ask(self, path: str, body: bytes, *more: tuple[str, str], padding: int | None = None) -> int:
        """A whole unary call that fits the windows."""
        stream = self.open(path, *more)
        self.state.send_data(stream, framed(body), end_stream=True, pad_length=padding)
        self.flush()
        return stream

    async def answer(self, stream: int) -> bytes:
        """The message of a stream that ended well."""
        await self.until(lambda: stream in self.ended)
        assert self.trailers[stream][b"grpc-status"] == b"0", self.trailers[stream]
        return self.bodies[stream][5:]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a state."""
        async with asyncio.timeout(60):
            while not condition():
                assert self.failed is None, self.failed
                await asyncio.sleep(0.002)

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(65_536):
                for event in self.state.receive_data(data):
                    self._take(event)
                self.flush()
        except (h2.exceptions.H2Error, ConnectionError) as error:
            self.failed = error

    def _take(self, event: object) -> None:
        match event:
            case h2.events.DataReceived():
                self.bodies[event.stream_id] += event.data
                if self._acknowledges and event.flow_controlled_length:
                    self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived() | h2.events.ResponseReceived():
                self.trailers[event.stream_id] = dict(event.headers)
            case h2.events.StreamEnded():
                self.ended.add(event.stream_id)
            case h2.events.SettingsAcknowledged():
                self.settled += 1


@pytest.fixture
async def running() -> AsyncIterator[tuple[int, Calls]]:
    calls = Calls()
    async with Http2Server(calls.find, port=0, limits=Http2Limits(message_bytes=3_000_000)) as server:
        yield server.port, calls


async def test_a_megabyte_comes_through_default_windows(running: tuple[int, Calls]) -> None:
    async with H2Client(running[0]) as client:
        assert await client.answer(client.ask("zeros", b"1000000")) == bytes(1_000_000)


async def test_a_window_that_shrinks_in_the_middle_of_an_answer_is_kept(running: tuple[int, Calls]) -> None:
    async with H2Client(running[0], acknowledges=False) as client:
        stream = client.ask("zeros", b"200000")
        await client.until(lambda: len(client.bodies[stream]) == 65_535)
        client.state.update_settings({INITIAL: 1000})
        client.flush()
        await client.until(lambda: client.settled == 2)
        client.state.increment_flow_control_window(300_000)
        client.state.increment_flow_control_window(300_000, stream)
        client.flush()
        assert await client.answer(stream) == bytes(200_000)


async def test_a_window_of_one_byte_is_filled_a_byte_at_a_time(running: tuple[int, Calls]) -> None:
    async with H2Client(running[0]) as client:
        client.state.update_settings({INITIAL: 1})
        client.flush()
        await client.until(lambda: client.settled == 2)
        assert await client.answer(client.ask("same", b"abcdefgh")) == b"abcdefgh"


async def test_a_header_block_in_continuations_is_read_whole(running: tuple[int, Calls]) -> None:
    port, calls = running
    more = [(f"x-{index}", "ä€ 1,;" * 60) for index in range(20)]
    async with H2Client(port) as client:
        client.state.max_outbound_frame_size = 100
        stream = client.open("same", *more[:10])
        client.state.max_outbound_frame_size = 16_384
        client.state.send_data(stream, framed(b"hi"), end_stream=True)
        client.flush()
        assert await client.answer(stream) == b"hi"
    assert len([name for name, _ in calls.seen[0].metadata if name.startswith("x-")]) == 10


@pytest.mark.parametrize("padding", [0, 1, 255])
async def test_padding_is_taken_off_and_counted(running: tuple[int, Calls], padding: int) -> None:
    async with H2Client(running[0]) as client:
        for body in (b"", b"abc", b"x" * 10_000):
            assert await client.answer(client.ask("same", body, padding=padding)) == body


async def test_deadlines_that_fill_the_table_of_headers_are_read_right(running: tuple[int, Calls]) -> None:
    port, calls = running
    async with H2Client(port) as client:
        for index in range(300):  # each new one enters the table; the rest is pushed out of it now and then
            stream = client.ask("same", b"%d" % index, ("x-number", "7"), ("grpc-timeout", f"{1000 + index}S"))
            assert await client.answer(stream) == b"%d" % index
    loop = asyncio.get_running_loop()
    deadlines = [call.deadline for call in calls.seen]
    assert deadlines == sorted(deadlines)
    assert 1200 < deadlines[-1] - loop.time() < 1300
    assert all(call.metadata[-1] == ("x-number", "7") for call in calls.seen)
