"""RFC 9113 section by section, with a client that sends each frame itself.

3.4 preface | 4.1-4.3 frames, sizes, header blocks | 5.1 states | 5.2 flow control | 5.5 extensions
6.1 DATA | 6.2 HEADERS | 6.3 PRIORITY | 6.4 RST_STREAM | 6.5 SETTINGS | 6.6 PUSH_PROMISE | 6.7 PING | 6.8 GOAWAY
6.9 WINDOW_UPDATE | 6.10 CONTINUATION | 8.1 messages | 8.2 fields | 8.3 pseudo-headers
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from inferloop.net.http2 import frames
from inferloop.net.http2.limits import Http2Limits
from inferloop.net.http2.server import Http2Server
from inferloop.net.http2.violation import ErrorCode as E
from support.calls import Calls
from support.http2_peer import Peer, block, call, data, framed, request

LIMITS = Http2Limits(message_bytes=3_000_000, streams=50)
PADDED_CALL = (
    frames.head(len(block("/test.Echo/same")) + 8, 1, 0x2C, 1) + b"\2" + b"\0\0\0\0\x10" + block("/test.Echo/same") + b"\0\0"
    + frames.head(14, 0, 0x9, 1) + b"\5" + framed(b"abc") + b"\0" * 5
)  # fmt: skip
SPLIT = block("/test.Echo/same")


@dataclass
class Running:
    port: int
    calls: Calls
    server: Http2Server


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    calls = Calls()
    async with Http2Server(calls.find, port=0, limits=LIMITS) as server:
        yield Running(server.port, calls, server)


async def test_a_call_is_answered_with_headers_message_and_trailers(running: Running) -> None:
    async with Peer(running.port) as peer:
        peer.send(call(1, "same", b"hello"))
        assert await peer.answer(1) == b"hello"
        assert peer.headers[1] == [[(":status", "200"), ("content-type", "application/grpc")], [("grpc-status", "0")]]


async def test_a_priority_of_a_wrong_length_ends_its_stream(running: Running) -> None:  # 6.3
    async with Peer(running.port) as peer:
        peer.send(request(1, "echo"), frames.head(4, 2, 0, 1) + b"\0" * 4, data(1, framed(b"late")))
        await peer.until(lambda: 1 in peer.resets)
        await peer.settled()
        assert (peer.resets[1], peer.bodies[1]) == (E.FRAME_SIZE_ERROR, b"")


async def test_frames_split_at_every_byte_give_the_same_answer(running: Running) -> None:
    sent = PADDED_CALL + frames.head(3, 0x77, 0xFF, 9) + b"new" + frames.ping(b"12345678")  # 4.1, 5.5, 6.1, 6.2
    for cut in range(1, len(sent)):
        async with Peer(running.port) as peer:
            peer.send(sent[:cut])
            await peer.settled() if cut == len(PADDED_CALL) else None
            peer.send(sent[cut:])
            assert await peer.answer(1) == b"abc"


async def test_a_header_block_may_be_cut_at_each_byte(running: Running) -> None:  # 4.3, 6.10
    async with Peer(running.port) as peer:
        for cut in range(len(SPLIT)):
            stream = 2 * cut + 1
            peer.send(frames.head(cut, 1, 0, stream), SPLIT[:cut], frames.head(len(SPLIT) - cut, 9, 4, stream), SPLIT[cut:])
            peer.send(data(stream, framed(b"%d" % cut)))
            assert await peer.answer(stream) == b"%d" % cut


async def test_a_large_answer_keeps_to_the_windows_and_frames_of_a_client_with_defaults(running: Running) -> None:  # 5.2
    async with Peer(running.port) as peer:
        peer.send(call(1, "zeros", b"1000000"))
        await peer.until(lambda: len(peer.bodies[1]) == 65_535)
        await peer.settled()
        assert len(peer.bodies[1]) == 65_535
        peer.send(frames.window_update(1, 2_000_000))
        await peer.settled()
        assert len(peer.bodies[1]) == 65_535  # the connection's window is closed, too
        peer.send(frames.window_update(0, 2_000_000))
        assert await peer.answer(1) == bytes(1_000_000)
        assert peer.largest <= 16_384


async def test_a_window_that_shrinks_below_zero_opens_again_at_zero(running: Running) -> None:  # 6.9.2
    async with Peer(running.port) as peer:
        peer.send(frames.window_update(0, 10**6), call(1, "zeros", b"200000"))
        await peer.until(lambda: len(peer.bodies[1]) == 65_535)
        peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 1000}), frames.window_update(1, 64_535))
        await peer.settled()
        assert len(peer.bodies[1]) == 65_535
        peer.send(frames.window_update(1, 1))
        await peer.until(lambda: len(peer.bodies[1]) == 65_536)
        peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 10**6}))
        assert await peer.answer(1) == bytes(200_000)


async def test_windows_of_one_byte_are_enough(running: Running) -> None:
    async with Peer(running.port, {frames.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.send(call(1, "same", b"0123456789"))
        for size in range(1, 16):
            peer.send(frames.window_update(1, 1))
            await peer.until(lambda size=size: len(peer.bodies[1]) == size)
        assert await peer.answer(1) == b"0123456789"


async def test_a_closed_stream_window_holds_back_its_stream_only(running: Running) -> None:
    async with Peer(running.port, {frames.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.send(call(1, "same", b"first"), call(3, "same", b"second"), frames.window_update(3, 100))
        assert await peer.answer(3) == b"second"
        peer.send(frames.window_update(1, 100))
        assert await peer.answer(1) == b"first"


async def test_answers_take_turns_on_a_narrow_connection(running: Running) -> None:
    async with Peer(running.port, {frames.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.send(call(1, "zeros", b"500000"), call(3, "zeros", b"500000"), frames.settings({frames.INITIAL_WINDOW_SIZE: 10**6}))
        await peer.until(lambda: len(peer.bodies[1]) + len(peer.bodies[3]) == 65_535)
        assert abs(len(peer.bodies[1]) - len(peer.bodies[3])) <= 16_384
        peer.send(frames.window_update(0, 10**6))
        assert await peer.answer(1) == await peer.answer(3) == bytes(500_000)


async def test_a_large_request_is_given_credit_as_it_arrives(running: Running) -> None:
    async with Peer(running.port) as peer:
        message = framed(bytes(2_500_000))
        peer.send(request(1, "size"))
        await peer.until(lambda: peer.granted[0])
        room = LIMITS.window_bytes
        at = 0
        while at < len(message):
            await peer.until(lambda at=at: room + peer.granted[1] > at)
            part = message[at : min(at + 16_384, room + peer.granted[1])]
            at += len(part)
            peer.send(data(1, part, int(at == len(message))))
        assert await peer.answer(1) == b"2500000"


CONNECTION_ERRORS = {
    "3.4 a first frame that is no SETTINGS": (frames.PREFACE + frames.ping(b"12345678"), E.PROTOCOL_ERROR),
    "3.4 another protocol": (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", E.PROTOCOL_ERROR),
    "3.4 half a preface, then nonsense": (frames.PREFACE[:10] + b"x" * 20, E.PROTOCOL_ERROR),
}
MORE_ERRORS = {
    "4.2 a frame above our limit": (frames.head(70_000, 0, 0, 1), E.FRAME_SIZE_ERROR),
    "4.3 a block that cannot be read": (frames.head(1, 1, 5, 1) + b"\x80", E.COMPRESSION_ERROR),
    "5.1 DATA on an idle stream": (data(5, b"x"), E.PROTOCOL_ERROR),
    "5.1 RST_STREAM on an idle stream": (frames.rst_stream(5, E.CANCEL), E.PROTOCOL_ERROR),
    "5.1 WINDOW_UPDATE on an idle stream": (frames.window_update(5, 1), E.PROTOCOL_ERROR),
    "5.1.1 an even stream": (request(2, "same"), E.PROTOCOL_ERROR),
    "5.1.1 a stream below the last": (call(5, "same", b"") + request(3, "same"), E.STREAM_CLOSED),
    "6.1 DATA on stream 0": (data(0, b"x"), E.PROTOCOL_ERROR),
    "6.1 more padding than frame": (request(1, "same") + frames.head(3, 0, 8, 1) + b"\3ab", E.PROTOCOL_ERROR),
    "6.1 no length of padding": (request(1, "same") + frames.head(0, 0, 8, 1), E.FRAME_SIZE_ERROR),
    "6.2 HEADERS on stream 0": (request(0, "same"), E.PROTOCOL_ERROR),
    "6.2 HEADERS too short for priority": (frames.head(3, 1, 0x24, 1) + b"abc", E.FRAME_SIZE_ERROR),
    "6.2 another frame within a block": (request(1, "same", flags=0) + frames.ping(b"12345678"), E.PROTOCOL_ERROR),
    "6.3 PRIORITY on stream 0": (frames.head(5, 2, 0, 0) + b"12345", E.PROTOCOL_ERROR),
    "6.4 RST_STREAM on stream 0": (frames.rst_stream(0, E.CANCEL), E.PROTOCOL_ERROR),
    "6.4 RST_STREAM of a wrong length": (request(1, "same") + frames.head(3, 3, 0, 1) + b"abc", E.FRAME_SIZE_ERROR),
    "6.5 SETTINGS on a stream": (frames.head(0, 4, 0, 1), E.PROTOCOL_ERROR),
    "6.5 SETTINGS of a wrong length": (frames.head(5, 4, 0, 0) + b"12345", E.FRAME_SIZE_ERROR),
    "6.5 an acknowledgment with content": (frames.head(6, 4, 1, 0) + b"123456", E.FRAME_SIZE_ERROR),
    "6.5.2 ENABLE_PUSH 2": (frames.settings({2: 2}), E.PROTOCOL_ERROR),
    "6.5.2 INITIAL_WINDOW_SIZE 2^31": (frames.settings({4: 2**31}), E.FLOW_CONTROL_ERROR),
    "6.5.2 MAX_FRAME_SIZE too small": (frames.settings({5: 16_383}), E.PROTOCOL_ERROR),
    "6.5.2 MAX_FRAME_SIZE too large": (frames.settings({5: 2**24}), E.PROTOCOL_ERROR),
    "6.6 PUSH_PROMISE of a client": (frames.head(4, 5, 4, 1) + b"\0\0\0\2", E.PROTOCOL_ERROR),
    "6.7 PING on a stream": (frames.head(8, 6, 0, 1) + b"12345678", E.PROTOCOL_ERROR),
    "6.7 PING of a wrong length": (frames.head(7, 6, 0, 0) + b"1234567", E.FRAME_SIZE_ERROR),
    "6.8 GOAWAY on a stream": (frames.head(8, 7, 0, 1) + b"\0" * 8, E.PROTOCOL_ERROR),
    "6.8 GOAWAY too short": (frames.head(4, 7, 0, 0) + b"\0" * 4, E.FRAME_SIZE_ERROR),
    "6.9 a zero increment": (frames.window_update(0, 0), E.PROTOCOL_ERROR),
    "6.9 WINDOW_UPDATE of a wrong length": (frames.head(3, 8, 0, 0) + b"abc", E.FRAME_SIZE_ERROR),
    "6.9.1 a connection window above 2^31-1": (frames.window_update(0, 2**31 - 1), E.FLOW_CONTROL_ERROR),
    "6.9.2 stream windows above 2^31-1": (
        request(1, "echo") + frames.window_update(1, 2**30) + frames.settings({4: 2**31 - 1}), E.FLOW_CONTROL_ERROR,
    ),
    "6.10 CONTINUATION without HEADERS": (frames.head(1, 9, 4, 1) + b"\x82", E.PROTOCOL_ERROR),
    "6.10 CONTINUATION of another stream": (request(1, "same", flags=0) + frames.head(1, 9, 4, 3) + b"\x82", E.PROTOCOL_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("case", [*CONNECTION_ERRORS, *MORE_ERRORS])
async def test_a_broken_connection_ends_with_goaway_and_the_next_one_is_served(running: Running, case: str) -> None:
    start = CONNECTION_ERRORS[case][0] if case in CONNECTION_ERRORS else None
    sent, code = (b"", CONNECTION_ERRORS[case][1]) if start else MORE_ERRORS[case]
    async with Peer(running.port, start=start) as peer:
        peer.send(sent)
        assert await peer.goaway() == code
    async with Peer(running.port) as other:
        other.send(call(1, "same", b"fine"))
        assert await other.answer(1) == b"fine"


STREAM_ERRORS = {
    "5.1 DATA after the end": (call(1, "held", b"a") + data(1, b"x"), E.STREAM_CLOSED),
    "5.1 HEADERS after the end": (call(1, "held", b"a") + request(1, "held"), E.STREAM_CLOSED),
    "6.3 PRIORITY of a wrong length": (request(1, "echo") + frames.head(4, 2, 0, 1) + b"1234", E.FRAME_SIZE_ERROR),
    "6.9 a zero increment": (request(1, "echo") + frames.window_update(1, 0), E.PROTOCOL_ERROR),
    "6.9.1 a stream window above 2^31-1": (request(1, "echo") + frames.window_update(1, 2**31 - 1), E.FLOW_CONTROL_ERROR),
    "5.2 more than the stream's window": (
        frames.settings({4: 0}) + request(1, "echo") + data(1, framed(bytes(59_995)), 0) * 18 + frames.settings({4: 100}),
        E.FLOW_CONTROL_ERROR,
    ),
    "8.1 trailers that do not end": (request(1, "echo") + request(1, "echo"), E.PROTOCOL_ERROR),
    "8.1 trailers with pseudo-headers": (request(1, "echo") + request(1, "echo", flags=5), E.PROTOCOL_ERROR),
    "8.2 a header in upper case": (request(1, "same", (b"Upper", b"x")), E.PROTOCOL_ERROR),
    "8.2.2 a header of a connection": (request(1, "same", (b"connection", b"x")), E.PROTOCOL_ERROR),
    "8.3 a repeated pseudo-header": (request(1, "same", (b":method", b"POST")), E.PROTOCOL_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("case", STREAM_ERRORS)
async def test_a_broken_stream_is_reset_and_the_connection_goes_on(running: Running, case: str) -> None:
    sent, code = STREAM_ERRORS[case]
    async with Peer(running.port) as peer:
        peer.send(sent)
        await peer.until(lambda: 1 in peer.resets)
        assert peer.resets[1] == code
        peer.send(call(3, "same", b"fine"))
        assert await peer.answer(3) == b"fine"


async def test_frames_on_a_stream_that_we_have_reset_are_tolerated(running: Running) -> None:
    async with Peer(running.port) as peer:
        peer.send(request(1, "none"))
        await peer.until(lambda: 1 in peer.resets)
        peer.send(data(1, b"late", 0), frames.window_update(1, 5), frames.rst_stream(1, E.CANCEL), data(1, b"later"))
        peer.send(call(3, "same", b"fine"))
        assert await peer.answer(3) == b"fine"


async def test_streams_above_the_limit_are_refused_and_their_headers_still_enter_the_table(running: Running) -> None:
    async with Peer(running.port) as peer:
        for index in range(LIMITS.streams):
            peer.send(call(2 * index + 1, "held", b"%d" % index))
        kept = frames.head(len(SPLIT) + 6, 1, 4, 201) + SPLIT + b"\x40\x01k\x02v1"
        peer.send(kept)
        await peer.until(lambda: 201 in peer.resets)
        assert peer.resets[201] == E.REFUSED_STREAM
        running.calls.release.set()
        await peer.until(lambda: len(peer.ended) == LIMITS.streams)
        block_of_kept = SPLIT + b"\xbe"
        peer.send(frames.head(len(block_of_kept), 1, 4, 203), block_of_kept, data(203, framed(b"x")))
        assert await peer.answer(203) == b"x"
        assert ("k", "v1") in running.calls.seen[-1].metadata


async def test_a_reset_calls_the_work_off_and_its_slot_is_free_when_the_work_has_ended(running: Running) -> None:
    async with Peer(running.port) as peer:
        peer.send(call(1, "held", b"a"), call(3, "held", b"b"))
        await peer.until(lambda: running.calls.working == 2)
        peer.send(frames.rst_stream(1, E.CANCEL))
        await peer.until(lambda: running.calls.cancelled == ["a"])
        running.calls.release.set()
        assert await peer.answer(3) == b"b"
        assert 1 not in peer.ended


async def test_the_answer_of_one_that_left_harms_no_neighbor(running: Running) -> None:
    async with Peer(running.port) as leaving, Peer(running.port) as staying:
        leaving.send(call(1, "held", b"a"))
        staying.send(call(1, "held", b"b"))
        await staying.until(lambda: running.calls.working == 2)
        leaving.hang_up()
        running.calls.release.set()
        assert await staying.answer(1) == b"b"


@pytest.mark.parametrize(
    ("sent", "status", "text"),
    [
        (call(1, "none", b""), "12", "no method"),
        (call(1, "missing", b""), "5", "no model '%C3%A4%25'"),
        (request(1, "same") + data(1, b""), "12", "exactly one"),
        (request(1, "same") + data(1, framed(b"a") + framed(b"b")), "12", "exactly one"),
        (request(1, "same") + data(1, framed(b"abc")[:-1]), "13", "ends after"),
        (request(1, "same") + data(1, b"\2\0\0\0\0"), "13", "flag"),
        (request(1, "same") + data(1, b"\0\x7f\0\0\0", 0), "8", "limit"),
        (request(1, "same") + data(1, framed(b"x", 1)), "13", "compressed"),
        (request(1, "same", (b"grpc-encoding", b"zstd")), "12", "zstd"),
        (call(1, "same", b"", (b"grpc-timeout", b"5x")), "3", "grpc-timeout"),
        (call(1, "same", b"", (b"grpc-timeout", b"0S")), "4", "deadline"),
        (call(1, "held", b"", (b"grpc-timeout", b"20m")), "4", "deadline"),
        (call(1, "same", b"", (b"x", b"y" * 17_000)), "8", "headers"),
        (request(1, "same", (b"grpc-encoding", b"gzip")) + data(1, framed(b"nogzip", 1)), "13", "gzip"),
        (
            request(1, "same", (b"grpc-encoding", b"deflate")) + data(1, framed(zlib.compress(bytes(4_000_000)), 1)),
            "8", "decompressed",
        ),
    ],
)  # fmt: skip
async def test_what_is_no_good_call_gets_its_status(running: Running, sent: bytes, status: str, text: str) -> None:
    async with Peer(running.port) as peer:
        peer.send(sent, call(3, "same", b"fine"))
        assert await peer.status(1) == status
        assert text in peer.trailers(1)["grpc-message"]
        assert len(peer.headers[1]) == 1  # Trailers-Only
        assert await peer.answer(3) == b"fine"


async def test_an_unknown_encoding_names_the_known_ones(running: Running) -> None:
    async with Peer(running.port) as peer:
        peer.send(request(1, "same", (b"grpc-encoding", b"zstd")))
        assert await peer.status(1) == "12"
        assert peer.trailers(1)["grpc-accept-encoding"] == "identity,gzip,deflate"


async def test_what_is_no_grpc_is_told_by_http(running: Running) -> None:
    async with Peer(running.port) as peer:
        text = b"\x83\x86\x84\x5f\x0atext/plain"
        get = b"\x82\x86\x84\x5f\x10application/grpc"
        peer.send(frames.head(len(text), 1, 5, 1), text, frames.head(len(get), 1, 5, 3), get)
        await peer.until(lambda: len(peer.ended) == 2)
        assert peer.headers[1][0][0] == (":status", "415")
        assert peer.headers[3][0][0] == (":status", "405")


async def test_an_error_after_the_first_message_follows_it(running: Running) -> None:
    async with Peer(running.port) as peer:
        peer.send(request(1, "fails"))
        assert await peer.status(1) == "5"
        assert peer.bodies[1] == framed(b"first")
        assert peer.resets[1] == E.NO_ERROR  # the client need not go on sending


async def test_random_cuts_and_interleavings_give_the_same_answers(running: Running) -> None:
    for seed in range(25):
        chance = random.Random(seed)
        bodies = {stream: chance.randbytes(chance.choice((0, 1, 50, 5000, 40_000))) for stream in range(1, 41, 2)}
        rests = {}
        sent = []
        for stream, body in bodies.items():
            sent.append(request(stream, chance.choice(("same", "later", "echo"))))
            rests[stream] = framed(body)
        while rests:
            stream = chance.choice(list(rests))
            size = chance.choice((0, 1, 7, 1000, 16_384))
            part, rests[stream] = rests[stream][:size], rests[stream][size:]
            sent.append(data(stream, part, int(not rests[stream])))
            if not rests[stream]:
                del rests[stream]
        whole = b"".join(sent)
        async with Peer(running.port, {frames.INITIAL_WINDOW_SIZE: 2**20}) as peer:
            peer.send(frames.window_update(0, 2**24))
            while whole:
                size = chance.choice((1, 5, 100, 10_000, 200_000))
                peer.send(whole[:size])
                whole = whole[size:]
                await peer.settled() if chance.random() < 0.1 and not whole else None
            for stream, body in bodies.items():
                assert await peer.answer(stream) == body


async def test_a_drain_lets_calls_finish_and_refuses_new_ones(running: Running) -> None:
    async with Peer(running.port) as peer:
        peer.send(call(1, "held", b"a"))
        await peer.until(lambda: running.calls.working == 1)
        draining = asyncio.create_task(running.server.drain())
        await peer.until(lambda: len(peer.goaways) == 2)
        assert peer.goaways == [(2**31 - 1, 0), (1, 0)]
        peer.send(call(3, "same", b"late"))
        await peer.until(lambda: 3 in peer.resets)
        assert peer.resets[3] == E.REFUSED_STREAM
        running.calls.release.set()
        assert await peer.answer(1) == b"a"
        await draining
        assert running.server.connections == 0


async def test_a_drain_ends_what_does_not_finish_in_time(running: Running) -> None:
    async with Peer(running.port) as peer:
        peer.send(call(1, "held", b"a"), request(3, "echo"))
        await peer.until(lambda: running.calls.working == 2)
        await running.server.drain(0.1)
        assert await peer.status(1) == "14"
        assert await peer.status(3) == "14"
        assert running.calls.working == 0
