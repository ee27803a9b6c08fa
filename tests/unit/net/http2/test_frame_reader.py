"""Bytes in, frames out: wherever the network cuts them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.net.http2 import frames
from inferloop.net.http2.frame_reader import ANY, FrameReader
from inferloop.net.http2.limits import Http2Limits
from inferloop.net.http2.violation import ErrorCode, Violation

Seen = list[tuple[int, bytes, int, int]]
SENT = (
    frames.PREFACE
    + frames.settings({4: 65_535})
    + frames.ping(b"12345678")
    + frames.head(0, frames.DATA, 1, 7)
    + frames.head(3, 0x77, 0xFF, 9) + b"new"
    + frames.head(40, frames.DATA, 0, 3) + bytes(range(40))
)  # fmt: skip


class Collecting:
    """A reader whose frames are kept."""

    def __init__(self, **limits: float) -> None:
        self.seen: Seen = []
        self.unknown = 0
        self.reader = FrameReader(Http2Limits(**limits), 0.0)  # type: ignore[arg-type]  # some are whole numbers
        self.reader.unknown = self._unknown
        self.reader.handlers = tuple(self._handler(kind) for kind in range(10))

    def _unknown(self) -> None:
        self.unknown += 1

    def _handler(self, kind: int):
        def handle(data: bytes, start: int, end: int, flags: int, stream: int) -> None:
            self.reader.only = ANY
            self.seen.append((kind, data[start:end], flags, stream))

        return handle


def read(*parts: bytes) -> tuple[Seen, int]:
    collecting = Collecting()
    for part in parts:
        collecting.reader.feed(part, 0.0)
    return collecting.seen, collecting.unknown


WHOLE = read(SENT)


def test_frames_come_whole_and_in_order() -> None:
    seen, unknown = WHOLE
    assert [(kind, len(payload), stream) for kind, payload, _, stream in seen] == [(4, 6, 0), (6, 8, 0), (0, 0, 7), (0, 40, 3)]
    assert (seen[-1][1], unknown) == (bytes(range(40)), 1)


@pytest.mark.parametrize("cut", range(1, len(SENT)))
def test_one_cut_anywhere_changes_nothing_in_the_preface_either(cut: int) -> None:
    assert read(SENT[:cut], SENT[cut:]) == WHOLE


@given(st.lists(st.integers(0, len(SENT)), max_size=20))
def test_any_cuts_change_nothing(cuts: list[int]) -> None:
    places = sorted({0, len(SENT), *cuts})
    assert read(*(SENT[start:end] for start, end in pairwise(places))) == WHOLE


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/1.1", b"\x16\x03\x01", b"X", frames.PREFACE[:-1] + b"x"])
def test_what_is_no_preface_is_refused_as_soon_as_it_shows(start: bytes) -> None:
    with pytest.raises(Violation, match="no HTTP/2") as caught:
        read(start)
    assert caught.value.code is ErrorCode.PROTOCOL_ERROR


def test_a_frame_that_is_too_long_is_refused_by_its_head() -> None:
    collecting = Collecting(frame_bytes=16_384)
    with pytest.raises(Violation, match="16385 bytes, the limit is 16384") as caught:
        collecting.reader.feed(frames.PREFACE + frames.head(16_385, frames.SETTINGS, 0, 0), 0.0)
    assert caught.value.code is ErrorCode.FRAME_SIZE_ERROR


def test_the_first_frame_is_settings() -> None:
    with pytest.raises(Violation, match="frame type 6 where only 4"):
        read(frames.PREFACE + frames.ping(b"12345678"))


@pytest.mark.parametrize(("sent", "late_at"), [(b"", 10.1), (frames.PREFACE, 10.1), (SENT + b"\0", 15.1)])
def test_who_stops_within_the_start_or_a_frame_is_late(sent: bytes, late_at: float) -> None:
    collecting = Collecting(header_s=10.0, frame_bytes=16_384, rate=16_384 / 5)
    collecting.reader.feed(sent, 0.0)
    assert not collecting.reader.late(late_at - 0.2)
    assert collecting.reader.late(late_at)


def test_who_sent_whole_frames_is_never_late() -> None:
    collecting = Collecting()
    collecting.reader.feed(SENT, 0.0)
    assert not collecting.reader.late(1e9)


def test_a_stopped_reader_hands_on_nothing_more() -> None:
    collecting = Collecting()
    collecting.reader.feed(SENT[:-1], 0.0)
    before = len(collecting.seen)
    collecting.reader.stop()
    assert len(collecting.seen) == before
    assert not collecting.reader.late(0.0)
