"""What a peer can do wrong in HTTP/2, and what it costs: the stream or the connection."""

from __future__ import annotations

from enum import IntEnum

from inferloop.core.errors import InferloopError


class ErrorCode(IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Violation(InferloopError):
    """A connection error: GOAWAY with `code`, then closed. Never leaves the connection's `data_received`.

    Attributes:
        code: what the GOAWAY says.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Malformed(InferloopError):
    """A stream error: RST_STREAM with PROTOCOL_ERROR (RFC 9113, 8.1.1)."""
