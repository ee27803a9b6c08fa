"""The peer's SETTINGS, checked (RFC 9113, 6.5.2)."""

from __future__ import annotations

from inferloop.net.http2 import frames
from inferloop.net.http2.violation import ErrorCode, Violation

_SIZE = frames.SETTING.size
_MAX_FRAME = 2**24 - 1


def read(payload: bytes) -> dict[int, int]:
    """The settings of one frame; of a repeated one the last. Unknown ones are left in.

    Raises:
        Violation: a length or value that no setting may have.
    """
    if len(payload) % _SIZE:
        raise Violation(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS is no multiple of six bytes")
    found = dict(frames.SETTING.iter_unpack(payload))
    if found.get(frames.ENABLE_PUSH, 0) > 1:
        raise Violation(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
    if found.get(frames.INITIAL_WINDOW_SIZE, 0) > frames.MAX_WINDOW:
        raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is above 2^31-1")
    if not frames.DEFAULT_FRAME <= found.get(frames.MAX_FRAME_SIZE, frames.DEFAULT_FRAME) <= _MAX_FRAME:
        raise Violation(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
    return found
