"""The frames of one connection, cut out of what arrives (RFC 9113, 3.4 and 4.1)."""

from __future__ import annotations

from collections.abc import Callable

from inferloop.net.http2 import frames
from inferloop.net.http2.limits import Http2Limits
from inferloop.net.http2.violation import ErrorCode, Violation

ANY = -1

FrameHandler = Callable[[bytes, int, int, int, int], None]
"""Takes data, where the payload starts and ends in it, the flags and the stream."""


class FrameReader:
    """Bytes in, whole frames out, each to the handler of its type.

    Attributes:
        handlers: by frame type.
        unknown: called for a type that has none.
        only: the type that must come next; ANY.
    """

    __slots__ = (
        "_awaited_since",
        "_limits",
        "_needed",
        "_partial_since",
        "_prefaced",
        "_rest",
        "_stopped",
        "handlers",
        "only",
        "unknown",
    )

    handlers: tuple[FrameHandler, ...]
    unknown: Callable[[], None]

    def __init__(self, limits: Http2Limits, now: float) -> None:
        self._limits = limits
        self._rest = bytearray()
        self._needed = 0
        self._prefaced = False
        self._stopped = False
        self._awaited_since = self._partial_since = now
        self.only = frames.SETTINGS

    @property
    def held_bytes(self) -> int:
        """Of a frame that is not whole yet."""
        return len(self._rest)

    def expect(self, kind: int, now: float) -> None:
        """Nothing else may come next."""
        self.only = kind
        self._awaited_since = now

    def late(self, now: float) -> bool:
        """Whether the client takes too long over a frame, a header block, or its first SETTINGS."""
        limits = self._limits
        if self.only != ANY:
            return now - self._awaited_since > limits.header_s
        return bool(self._rest) and now - self._partial_since > limits.header_s + limits.frame_bytes / limits.rate

    def stop(self) -> None:
        """Hand on no more frames, those included that were read already."""
        self._stopped = True
        self._rest = bytearray()

    def feed(self, data: bytes, now: float) -> None:
        """Take what arrived.

        Raises:
            Violation: no preface, a frame that is too long, or one that may not stand here; or whatever a handler raises.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest = bytearray()
        else:
            self._partial_since = now
        at = 0
        if not self._prefaced:
            if len(data) < len(frames.PREFACE):
                _check_preface(data)
                self._keep(data, 0, len(frames.PREFACE), now)
                return
            at = _check_preface(data)
            self._prefaced = True
        self._cut(data, at, now)

    def _cut(self, data: bytes, at: int, now: float) -> None:
        size = len(data)
        most = self._limits.frame_bytes
        unpack = frames.HEAD.unpack_from
        handlers = self.handlers
        while size - at >= frames.HEAD_BYTES and not self._stopped:
            high, low, kind, flags, stream = unpack(data, at)
            length = high << 8 | low
            if length > most:
                raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes, the limit is {most}")
            start = at + frames.HEAD_BYTES
            end = start + length
            if end > size:
                self._keep(data, at, end - at, now)
                return
            if kind != self.only and self.only != ANY:
                raise Violation(ErrorCode.PROTOCOL_ERROR, f"frame type {kind} where only {self.only} may stand")
            if kind < len(handlers):
                handlers[kind](data, start, end, flags, stream & frames.MAX_STREAM)
            else:
                self.unknown()
            at = end
        if at < size and not self._stopped:
            self._keep(data, at, frames.HEAD_BYTES, now)

    def _keep(self, data: bytes, at: int, needed: int, now: float) -> None:
        """Wait until `needed` bytes are there."""
        if at:
            self._partial_since = now
        self._rest = bytearray(memoryview(data)[at:])
        self._needed = needed


def _check_preface(data: bytes) -> int:
    """The length of the preface, if this is one or the start of one."""
    if not data.startswith(frames.PREFACE[: len(data)]):
        raise Violation(ErrorCode.PROTOCOL_ERROR, "this is no HTTP/2 with prior knowledge")
    return len(frames.PREFACE)


def unpad(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the content of a padded frame starts and ends.

    Raises:
        Violation: the padding is longer than the frame.
    """
    if start >= end:
        raise Violation(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without its padding's length")
    padding = data[start]
    if padding >= end - start:
        raise Violation(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return start + 1, end - padding


def check_length(length: int, wanted: int) -> None:
    """Some frames have one length only.

    Raises:
        Violation: another one.
    """
    if length != wanted:
        raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes where {wanted} belong")
