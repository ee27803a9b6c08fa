"""The parts of the transport that need no connection: heads, messages, deadlines, blocks."""

from __future__ import annotations

import asyncio
import time

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput, NotFound, TooLarge
from inferloop.net.grpc_call import Status
from inferloop.net.http2 import blocks, frames, head
from inferloop.net.http2.deadlines import Deadlines
from inferloop.net.http2.fields import Field
from inferloop.net.http2.intake import Broken, Intake
from inferloop.net.http2.violation import Malformed

POST = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/m"))
CALL = (*POST, (b"content-type", b"application/grpc"))


def read(*fields: tuple[bytes, bytes]) -> head.Head:
    return head.read(Field(name, value) for name, value in fields)


def told(block: bytes) -> dict[str, str]:
    return {str(name): str(value) for name, value in hpack.Decoder().decode(block)}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9), (b"00000001S", 1),
     (b"99999999H", 99999999 * 3600)],
)  # fmt: skip
def test_a_timeout_is_digits_and_a_unit(value: bytes, seconds: float) -> None:
    assert head.parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"-1S", b"1.5S", b"123456789S", b"1s", b"\xb2S", b" 1S"])
def test_anything_else_is_no_timeout(value: bytes) -> None:
    assert head.parse_timeout(value) is None


def test_metadata_keeps_order_and_repetition_and_undoes_base64() -> None:
    found = read(*CALL, (b"b", b"1"), (b"a-bin", b"AAE"), (b"b", b"2"), (b"a-bin", b"AAE=,Ag=="), (b"te", b"trailers"))
    assert found.metadata == (("b", "1"), ("a-bin", b"\0\1"), ("b", "2"), ("a-bin", b"\0\1"), ("a-bin", b"\2"))


@pytest.mark.parametrize(
    "fields",
    [
        POST[1:], POST[:1], POST[:2], (*CALL, POST[0]), (*CALL, (b":path", b"/x")), (*CALL, (b"a", b"1"), (b":authority", b"h")),
        (*CALL, (b"A", b"1")), (*CALL, (b"", b"1")), (*CALL, (b"a b", b"1")), (*CALL, (b"a", b"1\r\n")), (*CALL, (b"a", b" 1")),
        (*CALL, (b"connection", b"close")), (*CALL, (b"te", b"gzip")), (*CALL, (b"transfer-encoding", b"chunked")),
        (*CALL, (b":status", b"200")), (*CALL, (b"x-bin", b"***")), ((b":method", b"POST"), (b":method", b"POST"), *CALL),
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(Malformed):
        read(*fields)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [(b"application/grpc", 0), (b"application/grpc+proto", 0), (b"application/grpc;a=b", 0), (b"application/grpcx", 415),
     (b"text/plain", 415)],
)  # fmt: skip
def test_only_grpc_is_served(content_type: bytes, status: int) -> None:
    assert read(*POST, (b"content-type", content_type)).refusal == status


def test_only_post_is_served() -> None:
    assert read((b":method", b"GET"), *CALL[1:]).refusal == 405


def test_an_error_of_ours_becomes_status_message_and_hint() -> None:
    found = told(blocks.error(NotFound("no ä%\n", hint="try ö")))
    assert found["grpc-status"] == str(int(Status.NOT_FOUND))
    assert found["grpc-message"] == "no %C3%A4%25%0A"
    assert found["inferloop-hint"].isascii()


def test_any_other_error_says_nothing() -> None:
    assert told(blocks.error(RuntimeError("secret"))) == {"grpc-status": "13", "grpc-message": "internal error"}


@pytest.mark.parametrize("name", ["Upper", "grpc-status", ":path", "a b", "connection", "ä", ""])
def test_a_name_that_no_trailer_may_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        blocks.check_metadata({name: "1"})


def test_a_long_block_leaves_in_continuation_frames() -> None:
    sent = frames.header_frames(5, b"x" * 40_000, end_stream=True, limit=16_384)
    kinds = []
    at = 0
    while at < len(sent):
        kinds.append((sent[at + 3], sent[at + 4]))
        at += 9 + int.from_bytes(sent[at : at + 3], "big")
    assert kinds == [(1, 1), (9, 0), (9, 4)]


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=70)), max_size=6), st.data())
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages: list[tuple[bool, bytes]], data: st.DataObject) -> None:
    stream = b"".join(bytes((flag,)) + len(body).to_bytes(4, "big") + body for flag, body in messages)
    intake = Intake(64, 100)
    found = []
    at = 0
    while at < len(stream):
        size = data.draw(st.integers(1, min(intake.window, len(stream) - at)))
        intake.window -= size
        intake.add(stream[at : at + size])
        at += size
        while (taken := intake.take()) is not None:
            found.append(taken)
        intake.credit()
        assert intake.window > 0  # whoever reads all is never stuck
        assert intake.window + intake.unread_bytes <= 64 + 105
    intake.ended = True
    assert intake.take() is None
    assert found == messages


def test_a_message_above_the_limit_is_refused_by_its_length_alone() -> None:
    with pytest.raises(TooLarge, match="101"):
        Intake(64, 100).add(b"\0\0\0\0\x65")


def test_a_message_that_ends_early_is_broken() -> None:
    intake = Intake(64, 100)
    intake.add(b"\0\0\0\0\x05abc")
    intake.ended = True
    with pytest.raises(Broken):
        intake.take()


class Waiting:
    def __init__(self) -> None:
        self.closed = False
        self.expired = 0

    def expire(self) -> None:
        self.expired += 1


async def test_deadlines_pass_in_their_order_and_only_for_calls_that_wait() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    calls = [Waiting() for _ in range(3)]
    for call, after in zip(calls, (0.02, 0.01, 30), strict=True):
        deadlines.add(call, time.monotonic() + after)
    calls[0].closed = True
    deadlines.remove()
    async with asyncio.timeout(60):
        while not calls[1].expired:
            await asyncio.sleep(0.005)
    assert [call.expired for call in calls] == [0, 1, 0]
    deadlines.close()


async def test_calls_that_are_over_do_not_pile_up_until_their_deadline() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    for _ in range(10_000):
        call = Waiting()
        deadlines.add(call, time.monotonic() + 3600)
        call.closed = True
        deadlines.remove()
    assert len(deadlines) <= 1100
    deadlines.close()
