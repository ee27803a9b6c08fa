"""The answer of a unary call, all its frames in one piece: HEADERS, DATA, and HEADERS with the status."""

from __future__ import annotations

from collections.abc import Mapping

from inferloop.net.grpc_call import Status
from inferloop.net.http2 import blocks, frames
from inferloop.net.http2.intake import PREFIX

_HEADERS = blocks.HEADERS_OK
_HEADERS_HEAD = frames.head(len(_HEADERS), frames.HEADERS, frames.END_HEADERS, 0)[:5]
_TRAILERS = blocks.TRAILERS_OK
_TRAILERS_HEAD = frames.head(len(_TRAILERS), frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0)[:5]
_U32 = frames.U32.pack
_HEAD = frames.HEAD.pack


def whole(stream_id: int, message: bytes, trailers: Mapping[str, str] | None, frame_bytes: int) -> bytes:
    """The frames of a call that ends well; the message, with its prefix, must fit one of them."""
    size = len(message) + PREFIX
    number = _U32(stream_id)
    if trailers is None:
        tail = _TRAILERS_HEAD + number + _TRAILERS
    else:
        block = blocks.trailers(Status.OK, "", trailers)
        tail = frames.header_frames(stream_id, block, end_stream=True, limit=frame_bytes)
    parts = (
        _HEADERS_HEAD, number, _HEADERS,
        _HEAD(size >> 8, size & 0xFF, 0, 0, stream_id), b"\0", _U32(size - PREFIX), message,
        tail,
    )  # fmt: skip
    return b"".join(parts)
