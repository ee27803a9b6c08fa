"""What one client may ask of the transport: sizes, waits and counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of the HTTP server; beyond one of them a request or connection is refused.

    Attributes:
        body_bytes: the largest body, before and after decompression; 413.
        header_bytes: request line and headers together; 431.
        connections: open at once; 503 and closed.
        pipelined: requests of one connection in work at once; more of them wait.
        header_s: from the first byte of a request to the end of its headers; 408.
        body_s: from the end of the headers to the last byte of the body, and longer while it comes at `body_rate`; 408.
        body_rate: bytes per second that a slow line must make.
        idle_s: between two requests; closed.
        write_s: a client that takes no bytes for so long is dropped.
        linger_s: how long a refused client's bytes are read away, so that it sees the answer.
    """

    body_bytes: int = 64 * 1024 * 1024
    header_bytes: int = 32 * 1024
    connections: int = 4096
    pipelined: int = 32
    header_s: float = 10.0
    body_s: float = 60.0
    body_rate: float = 16 * 1024
    idle_s: float = 75.0
    write_s: float = 30.0
    linger_s: float = 2.0
