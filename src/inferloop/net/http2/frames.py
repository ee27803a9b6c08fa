"""Frames: their types, flags and heads (RFC 9113 sections 4 and 6)."""

from __future__ import annotations

from struct import Struct

from inferloop.net.http2.violation import ErrorCode

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
MAX_WINDOW = 2**31 - 1
MAX_STREAM = 2**31 - 1
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384

DATA = 0
HEADERS = 1
PRIORITY = 2
RST_STREAM = 3
SETTINGS = 4
PUSH_PROMISE = 5
PING = 6
GOAWAY = 7
WINDOW_UPDATE = 8
CONTINUATION = 9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

HEADER_TABLE_SIZE = 1
ENABLE_PUSH = 2
MAX_CONCURRENT_STREAMS = 3
INITIAL_WINDOW_SIZE = 4
MAX_FRAME_SIZE = 5
MAX_HEADER_LIST_SIZE = 6

HEAD = Struct(">HBBBI")
"""Length (upper 16 bits, lower 8), type, flags, stream."""

U32 = Struct(">I")
SETTING = Struct(">HI")

SETTINGS_ACK = HEAD.pack(0, 0, SETTINGS, ACK, 0)


def head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes before a payload of `length` bytes."""
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(SETTING.pack(key, value) for key, value in values.items())
    return head(len(payload), SETTINGS, 0, 0) + payload


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return HEAD.pack(0, 4, WINDOW_UPDATE, 0, stream) + U32.pack(increment)


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame."""
    return HEAD.pack(0, 4, RST_STREAM, 0, stream) + U32.pack(code)


def goaway(last: int, code: ErrorCode, text: str = "") -> bytes:
    """A GOAWAY frame; `last` is the highest stream that we may have worked on."""
    payload = U32.pack(last) + U32.pack(code) + text.encode("utf-8", "replace")[:256]
    return head(len(payload), GOAWAY, 0, 0) + payload


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    """A PING frame with eight bytes."""
    return HEAD.pack(0, 8, PING, ACK if ack else 0, 0) + payload


def header_frames(stream: int, block: bytes, *, end_stream: bool, limit: int) -> bytes:
    """A header block as HEADERS and as many CONTINUATION frames as `limit` bytes a frame ask for."""
    first = block[:limit]
    flags = END_STREAM if end_stream else 0
    if len(block) <= limit:
        return head(len(first), HEADERS, flags | END_HEADERS, stream) + first
    frames = [head(len(first), HEADERS, flags, stream), first]
    for start in range(limit, len(block), limit):
        part = block[start : start + limit]
        last = start + limit >= len(block)
        frames += (head(len(part), CONTINUATION, END_HEADERS if last else 0, stream), part)
    return b"".join(frames)
