"""The frames that carry no message: settings, windows, pings and ends (RFC 9113, 6.3 to 6.9)."""

from __future__ import annotations

from collections.abc import Callable

from inferloop.net.http2 import frames, peer_settings
from inferloop.net.http2.frame_reader import ANY, FrameReader, check_length
from inferloop.net.http2.frames import ACK
from inferloop.net.http2.open_streams import OpenStreams
from inferloop.net.http2.violation import ErrorCode, Violation


class Control:
    """Keeps the connection in order. The methods without `_` are `frame_reader.FrameHandler`s."""

    def __init__(
        self, streams: OpenStreams, reader: FrameReader, *, pinged: Callable[[bytes], None], left: Callable[[], None]
    ) -> None:
        """Set up.

        Args:
            streams: of the connection.
            reader: waits for the first SETTINGS.
            pinged: hears that the client has answered a PING.
            left: hears that the client opens no more streams.
        """
        self._streams = streams
        self._outflow = streams.outflow
        self._reader = reader
        self._pinged = pinged
        self._left = left

    def priority(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:  # noqa: ARG002 - a handler
        """PRIORITY, which asks for nothing that we do."""
        if stream_id == 0:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._streams.nuisance()
        if end - start == 5:
            return
        stream = self._streams.by_id.get(stream_id)
        if stream is None:
            self._streams.refuse(stream_id, ErrorCode.FRAME_SIZE_ERROR)
        else:
            self._streams.reset(stream, ErrorCode.FRAME_SIZE_ERROR)

    def rst_stream(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:  # noqa: ARG002 - a handler
        """RST_STREAM: the client calls a call off."""
        check_length(end - start, 4)
        self._streams.check_known(stream_id)
        stream = self._streams.by_id.get(stream_id)
        if stream is None:
            self._streams.nuisance()
            return
        self._streams.remove(stream)
        self._streams.count_reset()

    def settings(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        """SETTINGS, and the acknowledgment of ours."""
        if stream_id:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            check_length(end - start, 0)
            self._streams.nuisance()
            return
        found = peer_settings.read(data[start:end])
        self._reader.only = ANY
        self._streams.nuisance()
        out = self._outflow
        out.frame_bytes = found.get(frames.MAX_FRAME_SIZE, out.frame_bytes)
        initial = found.get(frames.INITIAL_WINDOW_SIZE, out.initial)
        if initial != out.initial:
            out.initial = initial
            self._widen_all()
        self._streams.write(frames.SETTINGS_ACK)

    def push_promise(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:  # noqa: ARG002 - a handler
        """PUSH_PROMISE, which only a server sends."""
        raise Violation(ErrorCode.PROTOCOL_ERROR, "a client does not push")

    def ping(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        """PING, and the answer to ours."""
        if stream_id:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        check_length(end - start, 8)
        self._streams.nuisance()
        payload = data[start:end]
        if flags & ACK:
            self._pinged(payload)
        else:
            self._streams.write(frames.ping(payload, ack=True))

    def goaway(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:  # noqa: ARG002 - a handler
        """GOAWAY: the client opens no more streams."""
        if stream_id:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if end - start < 8:
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY too short")
        self._streams.nuisance()
        self._left()

    def window_update(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:  # noqa: ARG002 - a handler
        """WINDOW_UPDATE, of the connection or of a stream."""
        check_length(end - start, 4)
        increment = frames.U32.unpack_from(data, start)[0] & frames.MAX_WINDOW
        if stream_id == 0:
            self._widen_connection(increment)
        else:
            self._widen(stream_id, increment)

    def _widen_connection(self, increment: int) -> None:
        out = self._outflow
        out.window += increment
        if increment == 0 or out.window > frames.MAX_WINDOW:
            code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
            raise Violation(code, f"the connection's window moved by {increment}")
        out.pump()

    def _widen(self, stream_id: int, increment: int) -> None:
        out = self._outflow
        stream = self._streams.by_id.get(stream_id)
        if stream is None:
            self._streams.check_known(stream_id)
            return
        stream.credit += increment
        if increment == 0:
            self._streams.reset(stream, ErrorCode.PROTOCOL_ERROR)
        elif out.initial + stream.credit > frames.MAX_WINDOW:
            self._streams.reset(stream, ErrorCode.FLOW_CONTROL_ERROR)
        elif stream.pending:
            out.enqueue(stream)
            out.pump()

    def _widen_all(self) -> None:
        """The initial window moved, and all streams with it."""
        out = self._outflow
        for stream in self._streams.by_id.values():
            if out.initial + stream.credit > frames.MAX_WINDOW:
                raise Violation(ErrorCode.FLOW_CONTROL_ERROR, f"the window of stream {stream.id} overflows")
            if stream.pending:
                out.enqueue(stream)
        out.pump()
