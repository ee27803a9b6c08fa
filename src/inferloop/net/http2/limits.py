"""What one client of the HTTP/2 server may ask for: sizes, waits, counts and floods."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Http2Limits:
    """Bounds of the HTTP/2 server; beyond one of them a call is refused, or the connection ends with GOAWAY.

    Attributes:
        message_bytes: the largest message, before and after decompression; RESOURCE_EXHAUSTED.
        buffered_bytes: unread request bytes of one connection together; the call that goes beyond is RESOURCE_EXHAUSTED.
        header_bytes: the header list as RFC 9113 counts it; RESOURCE_EXHAUSTED. Four times that on the wire is ENHANCE_YOUR_CALM.
        frame_bytes: the largest frame that we take; FRAME_SIZE_ERROR.
        window_bytes: what a client may send ahead on one stream.
        connection_window_bytes: what it may send ahead on all of them.
        connections: open at once; GOAWAY and closed.
        streams: calls of one connection at once, those that were reset but still work included; REFUSED_STREAM.
        resets: calls that a client may call off in a burst, refilled with `resets_per_s`; ENHANCE_YOUR_CALM.
        control: PING, SETTINGS, empty and unknown frames in a burst, refilled with `control_per_s` and by every finished call.
        unsent_bytes: replies to control frames that a client leaves unread; dropped.
        header_s: for the preface and the first SETTINGS, and for one header block.
        body_s: for a unary request to be complete, and longer while it comes at `rate`; DEADLINE_EXCEEDED.
        rate: bytes per second that a slow line must make.
        write_s: for an answer to leave, and longer while it leaves at `rate`; the stream is reset, or the connection dropped.
        idle_s: without an open stream; GOAWAY.
        keepalive_s: silence of a client with open streams before it is sent a PING.
        keepalive_reply_s: how long the answer to that PING may take; dropped.
        linger_s: how long a refused client's bytes are read away, so that it sees the GOAWAY.
    """

    message_bytes: int = 64 * 1024 * 1024
    buffered_bytes: int = 256 * 1024 * 1024
    header_bytes: int = 16 * 1024
    frame_bytes: int = 64 * 1024
    window_bytes: int = 1024 * 1024
    connection_window_bytes: int = 16 * 1024 * 1024
    connections: int = 4096
    streams: int = 1024
    resets: int = 4096
    resets_per_s: float = 200.0
    control: int = 2048
    control_per_s: float = 100.0
    unsent_bytes: int = 1024 * 1024
    header_s: float = 10.0
    body_s: float = 60.0
    rate: float = 16 * 1024
    write_s: float = 30.0
    idle_s: float = 300.0
    keepalive_s: float = 60.0
    keepalive_reply_s: float = 20.0
    linger_s: float = 2.0
