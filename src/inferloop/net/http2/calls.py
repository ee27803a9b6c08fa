"""The frames that make calls: DATA, HEADERS and CONTINUATION (RFC 9113, 6.1, 6.2, 6.10 and 8.1)."""

from __future__ import annotations

import time

from inferloop.net.grpc_call import Find
from inferloop.net.http2 import frames, requests
from inferloop.net.http2.frame_reader import ANY, FrameReader, unpad
from inferloop.net.http2.frames import END_HEADERS, END_STREAM, PADDED, WITH_PRIORITY
from inferloop.net.http2.hpack import HpackDecoder
from inferloop.net.http2.open_streams import OpenStreams
from inferloop.net.http2.stream import Stream
from inferloop.net.http2.violation import ErrorCode, Malformed, Violation

_STRAY = 0.1


class Calls:
    """Opens streams and feeds them. The methods without `_` are `frame_reader.FrameHandler`s."""

    def __init__(self, find: Find, streams: OpenStreams, reader: FrameReader) -> None:
        self._find = find
        self._streams = streams
        self._reader = reader
        self._limits = streams.limits
        self._requests = requests.Requests(HpackDecoder(streams.limits.header_bytes))
        self._block = bytearray()
        self._block_of = (0, 0)
        self._window = streams.limits.connection_window_bytes

    @property
    def held_bytes(self) -> int:
        """Of a header block that is not whole yet."""
        return len(self._block)

    def stop(self) -> None:
        """Nothing more comes."""
        self._block = bytearray()

    def data(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        """DATA."""
        length = end - start
        stream = self._streams.by_id.get(stream_id)
        if flags & PADDED:
            start, end = unpad(data, start, end)
        self._charge(length)
        if stream is None:
            self._stray(stream_id)
        elif stream.ended:
            self._streams.reset(stream, ErrorCode.STREAM_CLOSED)
        elif flags & END_STREAM and stream.is_whole(data, start, end) and length <= self._limits.message_bytes:
            stream.ended = True
            stream.start_unary(data[start + 5 : end])
        else:
            if start == end and not flags & END_STREAM:
                self._streams.nuisance()
            stream.receive(data[start:end], length, ended=bool(flags & END_STREAM))

    def headers(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        """HEADERS: the start of a call, or its trailers."""
        if not stream_id & 1:
            raise Violation(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        if flags & PADDED:
            start, end = unpad(data, start, end)
        if flags & WITH_PRIORITY:
            start += 5
            if start > end:
                raise Violation(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
        if flags & END_HEADERS:
            self._whole(data[start:end], stream_id, ended=bool(flags & END_STREAM))
            return
        self._block = bytearray(data[start:end])
        self._block_of = (stream_id, flags & END_STREAM)
        self._reader.expect(frames.CONTINUATION, self._streams.now)

    def continuation(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        """CONTINUATION."""
        expected, ended = self._block_of
        if self._reader.only != frames.CONTINUATION or stream_id != expected:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS of its stream")
        self._block += memoryview(data)[start:end]
        if len(self._block) > 4 * self._limits.header_bytes:
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too long")
        if flags & END_HEADERS:
            block = bytes(self._block)
            self._block = bytearray()
            self._reader.only = ANY
            self._whole(block, stream_id, ended=bool(ended))
        else:
            self._streams.nuisance()

    def _charge(self, length: int) -> None:
        """Count against the connection's window. It opens again at once: the streams' windows hold the client back."""
        self._window -= length
        if self._window < 0:
            raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
        full = self._limits.connection_window_bytes
        if self._window < full // 2:
            self._streams.write(frames.window_update(0, full - self._window))
            self._window = full

    def _stray(self, stream_id: int) -> None:
        """DATA on its way when we closed the stream; a window may hold many small ones."""
        self._streams.check_known(stream_id)
        if not self._streams.tolerates(stream_id):
            self._streams.refuse(stream_id, ErrorCode.STREAM_CLOSED)
        self._streams.nuisance(_STRAY)

    def _whole(self, block: bytes, stream_id: int, *, ended: bool) -> None:
        """A whole header block."""
        if stream_id > self._streams.last:
            self._streams.last = stream_id
            self._request(block, stream_id, ended=ended)
        else:
            self._trailers(block, stream_id, ended=ended)

    def _trailers(self, block: bytes, stream_id: int, *, ended: bool) -> None:
        streams = self._streams
        fields = self._requests.decoder.decode(block)  # also where nobody reads them: they move the table
        stream = streams.by_id.get(stream_id)
        if stream is None:
            if not streams.tolerates(stream_id):
                raise Violation(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {stream_id}, which is closed")
            streams.nuisance()
        elif stream.ended:
            streams.reset(stream, ErrorCode.STREAM_CLOSED)
        elif not ended or fields is None or not requests.are_trailers(fields):
            streams.reset(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            stream.receive(b"", 0, ended=True)

    def _request(self, block: bytes, stream_id: int, *, ended: bool) -> None:
        streams = self._streams
        try:
            found = self._requests.read(block)
        except Malformed:
            streams.refuse(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        if stream_id > streams.accepted or streams.full:
            streams.refuse(stream_id, ErrorCode.REFUSED_STREAM)
            return
        timeout_s = None if found is None else found.timeout_s
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        refused = requests.judge(found, self._limits.header_bytes)
        method = None if found is None or refused is not None else self._find(found.path)
        if found is None or method is None:
            self._answer_at_once(stream_id, refused or requests.no_method(found), ended=ended)
            return
        stream = Stream(streams, stream_id, method, found, deadline)
        streams.add(stream, timeout_s)
        stream.begin()
        if ended:
            stream.receive(b"", 0, ended=True)

    def _answer_at_once(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        streams = self._streams
        streams.write(frames.header_frames(stream_id, block, end_stream=True, limit=streams.outflow.frame_bytes))
        if not ended:
            streams.write(frames.rst_stream(stream_id, ErrorCode.NO_ERROR))
            streams.tolerate(stream_id)
