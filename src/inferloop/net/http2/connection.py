"""One HTTP/2 connection: frames in, frames out (RFC 9113).

Nothing that a peer sends raises into the loop: a mistake on a stream is RST_STREAM or a status, one on the connection is GOAWAY.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol, cast

from inferloop.core.errors import Unavailable
from inferloop.net.grpc_call import Find
from inferloop.net.http2 import frames, peer_settings, requests
from inferloop.net.http2.allowance import Allowance
from inferloop.net.http2.deadlines import Deadlines
from inferloop.net.http2.frames import ACK, END_HEADERS, END_STREAM, PADDED, WITH_PRIORITY
from inferloop.net.http2.hpack import TABLE_BYTES, HpackDecoder
from inferloop.net.http2.limits import Http2Limits
from inferloop.net.http2.outflow import Outflow
from inferloop.net.http2.stream import SOON_S, Stream
from inferloop.net.http2.violation import ErrorCode, Malformed, Violation
from inferloop.net.tls import subject

log = logging.getLogger(__name__)

_ANY = -1
_DRAIN_PING = b"draining"
_ALIVE_PING = b"alive?  "
_LAST_CALL_S = 1.0
_EARNED = 4
_TOLERATED = 4096
_STRAY = 0.1


class Owner(Protocol):
    """Who holds the connections: the server.

    Attributes:
        now: the loop's time, up to a tick ago.
    """

    limits: Http2Limits
    deadlines: Deadlines
    now: float
    tasks: set[asyncio.Task[None]]

    def opened(self, connection: Http2Connection) -> bool:
        """Take a connection in; False if there are too many."""
        ...

    def closed(self, connection: Http2Connection) -> None:
        """Forget a connection."""
        ...


class Http2Connection(asyncio.Protocol):
    """Reads frames, keeps streams, ends politely. Loop thread only. See `stream.Carrier` for the attributes."""

    def __init__(self, find: Find, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = owner.limits
        self.deadlines = owner.deadlines
        self.outflow = Outflow(self.write, loop.call_soon)
        self.working = 0
        self.unread_bytes = 0
        self.peer = ""
        self.subject = ""
        self._find = find
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._requests = requests.Requests(HpackDecoder(self.limits.header_bytes))
        self._streams: dict[int, Stream] = {}
        self._fresh: list[Stream] = []
        self._tolerated: dict[int, None] = {}
        self._last = 0
        self._accepted = frames.MAX_STREAM
        self._rest = bytearray()
        self._needed = 0
        self._prefaced = False
        self._only = frames.SETTINGS
        self._block = bytearray()
        self._block_of = (0, 0)
        self._window = self.limits.connection_window_bytes
        self._paused_bytes = 0
        self._corked = False
        self._out: list[bytes] = []
        self._ending = False
        self._gone = False
        self._heard = True
        self._pinged = False
        self._since = self._partial_since = self._awaited_since = self._idle_since = owner.now
        self._checked = owner.now
        self._drained_at: float | None = None
        self._resets = Allowance(self.limits.resets, self.limits.resets_per_s)
        self._control = Allowance(self.limits.control, self.limits.control_per_s)

    @property
    def now(self) -> float:
        """See `stream.Carrier`."""
        return self._owner.now

    @property
    def streams(self) -> int:
        """How many calls are open."""
        return len(self._streams)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not subclass it
        self.peer = _peer(transport)
        self.subject = subject(transport)
        fits = self._owner.opened(self)
        limits = self.limits
        offered = {
            frames.HEADER_TABLE_SIZE: TABLE_BYTES,
            frames.MAX_CONCURRENT_STREAMS: limits.streams,
            frames.INITIAL_WINDOW_SIZE: limits.window_bytes,
            frames.MAX_FRAME_SIZE: limits.frame_bytes,
            frames.MAX_HEADER_LIST_SIZE: limits.header_bytes,
        }
        more = limits.connection_window_bytes - frames.DEFAULT_WINDOW
        self.write(frames.settings(offered) + (frames.window_update(0, more) if more > 0 else b""))
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._end(ErrorCode.INADEQUATE_SECURITY, "ALPN h2 is needed")
        elif not fits:
            self._end(ErrorCode.ENHANCE_YOUR_CALM, f"more than {limits.connections} connections are open")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """See `asyncio.Protocol`: the client has left, its calls are called off."""
        self._gone = self._ending = True
        self._transport = None
        self._drop_streams()
        self._owner.closed(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._heard = True
        if self._ending:
            return
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest = bytearray()
        else:
            self._partial_since = self._owner.now
        self._corked = True
        try:
            self._take(data)
        except Violation as violation:
            self._end(violation.code, violation.message)
        except Exception:  # the loop outlives a defect of ours
            log.exception("connection failed")
            self._end(ErrorCode.INTERNAL_ERROR, "")
        self._uncork()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: a client that sends no more has left."""
        return False

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: the client reads slower than we answer."""
        self.outflow.paused = True
        self._paused_bytes = self._unsent()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.outflow.paused = False
        self.outflow.pump()

    # what streams call: see `stream.Carrier`

    def write(self, data: bytes) -> None:
        """See `stream.Carrier`."""
        if self._corked:
            self._out.append(data)
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def forget(self, stream: Stream) -> None:
        """See `stream.Carrier`."""
        if stream.closed:
            return
        if not stream.ended:
            self.write(frames.rst_stream(stream.id, ErrorCode.NO_ERROR))
            self._tolerate(stream.id)
        self._control.earn(_EARNED)
        self._remove(stream)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """See `stream.Carrier`."""
        if stream.closed:
            return
        self._refuse(stream.id, code)
        self._remove(stream)

    def watch(self, task: asyncio.Task[None]) -> None:
        """See `stream.Carrier`."""
        self._owner.tasks.add(task)
        task.add_done_callback(self._owner.tasks.discard)

    # what the server calls

    def drain(self) -> None:
        """Tell the client to open no more streams; close when the last has its answer."""
        if self._drained_at is None and not self._ending:
            self._drained_at = self._loop.time()
            self.write(frames.goaway(frames.MAX_STREAM, ErrorCode.NO_ERROR) + frames.ping(_DRAIN_PING))

    def drop(self) -> None:
        """Give what is open its end, and close."""
        for stream in list(self._streams.values()):
            stream.fail(Unavailable("the server is shutting down"))
            self.reset(stream, ErrorCode.CANCEL)
        self._close()

    def abort(self) -> None:
        """Drop the connection and what it still waits for."""
        if self._transport is not None:
            self._transport.abort()

    def check_time(self, now: float) -> None:
        """Called every now and then: end what idles, hangs or lingers."""
        elapsed = now - self._checked
        self._checked = now
        self._resets.elapse(elapsed)
        self._control.elapse(elapsed)
        if self._ending:
            if now - self._since > self.limits.linger_s:
                self.abort()
            return
        if self._late(now):
            self._end(ErrorCode.ENHANCE_YOUR_CALM, "a frame or header block took too long")
            return
        for stream in list(self._streams.values()):
            stream.check_time(now)
        if self._drained_at is not None and now - self._drained_at > _LAST_CALL_S:
            self._last_call()
        self._check_alive(now)

    # time

    def _late(self, now: float) -> bool:
        if self._only != _ANY:
            return now - self._awaited_since > self.limits.header_s
        return bool(self._rest) and now - self._partial_since > self.limits.header_s + self.limits.frame_bytes / self.limits.rate

    def _check_alive(self, now: float) -> None:
        if self._heard:
            self._heard = self._pinged = False
            self._since = now
        elif self._pinged:
            if now - self._since > self.limits.keepalive_s + self.limits.keepalive_reply_s:
                self.abort()
        elif self._streams and now - self._since > self.limits.keepalive_s:
            self._pinged = True
            self.write(frames.ping(_ALIVE_PING))
        if self._streams:
            self._idle_since = now
        elif now - self._idle_since > self.limits.idle_s and self._only == _ANY:
            self._end(ErrorCode.NO_ERROR, "idle")

    # frames in

    def _take(self, data: bytes) -> None:
        at = 0
        if not self._prefaced:
            at = self._preface(data)
        size = len(data)
        most = self.limits.frame_bytes
        unpack = frames.HEAD.unpack_from
        while size - at >= frames.HEAD_BYTES and not self._ending:
            high, low, kind, flags, stream = unpack(data, at)
            length = high << 8 | low
            if length > most:
                raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes, the limit is {most}")
            start = at + frames.HEAD_BYTES
            end = start + length
            if end > size:
                self._keep(data, at, end - at)
                return
            if kind != self._only and self._only != _ANY:
                raise Violation(ErrorCode.PROTOCOL_ERROR, f"frame type {kind} where only {self._only} may stand")
            if kind < len(_HANDLERS):
                _HANDLERS[kind](self, data, start, end, flags, stream & frames.MAX_STREAM)
            else:
                self._nuisance()
            at = end
        if at < size:
            self._keep(data, at, frames.HEAD_BYTES if self._prefaced else len(frames.PREFACE))

    def _keep(self, data: bytes, at: int, needed: int) -> None:
        """Wait until `needed` bytes are there."""
        if at:
            self._partial_since = self._owner.now
        self._rest = bytearray(memoryview(data)[at:])
        self._needed = needed

    def _preface(self, data: bytes) -> int:
        if not data.startswith(frames.PREFACE[: len(data)]):
            raise Violation(ErrorCode.PROTOCOL_ERROR, "this is no HTTP/2 with prior knowledge")
        if len(data) < len(frames.PREFACE):
            return 0
        self._prefaced = True
        return len(frames.PREFACE)

    def _on_data(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        length = end - start
        stream = self._streams.get(stream_id)
        if flags & PADDED:
            start, end = _unpad(data, start, end)
        self._charge(length)
        if stream is None:
            self._on_stray_data(stream_id)
        elif stream.ended:
            self.reset(stream, ErrorCode.STREAM_CLOSED)
        elif flags & END_STREAM and stream.is_whole(data, start, end) and length <= self.limits.message_bytes:
            stream.ended = True
            stream.start_unary(data[start + 5 : end])
        else:
            if start == end and not flags & END_STREAM:
                self._nuisance()
            stream.receive(data[start:end], length, ended=bool(flags & END_STREAM))

    def _charge(self, length: int) -> None:
        """Count against the connection's window. It opens again at once: the streams' windows hold the client back."""
        self._window -= length
        if self._window < 0:
            raise Violation(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
        full = self.limits.connection_window_bytes
        if self._window < full // 2:
            self.write(frames.window_update(0, full - self._window))
            self._window = full

    def _on_stray_data(self, stream_id: int) -> None:
        self._check_known(stream_id)
        if stream_id not in self._tolerated:
            self._refuse(stream_id, ErrorCode.STREAM_CLOSED)
        self._nuisance(_STRAY)  # on its way when we closed the stream; a window may hold many small ones

    def _on_headers(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        if not stream_id & 1:
            raise Violation(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        if flags & PADDED:
            start, end = _unpad(data, start, end)
        if flags & WITH_PRIORITY:
            start += 5
            if start > end:
                raise Violation(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
        if flags & END_HEADERS:
            self._on_block(data[start:end], stream_id, ended=bool(flags & END_STREAM))
            return
        self._block = bytearray(data[start:end])
        self._block_of = (stream_id, flags & END_STREAM)
        self._only = frames.CONTINUATION
        self._awaited_since = self._owner.now

    def _on_continuation(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        expected, ended = self._block_of
        if self._only != frames.CONTINUATION or stream_id != expected:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS of its stream")
        self._block += memoryview(data)[start:end]
        if len(self._block) > 4 * self.limits.header_bytes:
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too long")
        if flags & END_HEADERS:
            block = bytes(self._block)
            self._block = bytearray()
            self._only = _ANY
            self._on_block(block, stream_id, ended=bool(ended))
        else:
            self._nuisance()

    def _on_block(self, block: bytes, stream_id: int, *, ended: bool) -> None:
        """A whole header block: a request, or the end of one."""
        if stream_id > self._last:
            self._last = stream_id
            self._on_request(block, stream_id, ended=ended)
            return
        fields = self._requests.decoder.decode(block)
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id not in self._tolerated:
                raise Violation(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {stream_id}, which is closed")
            self._nuisance()
        elif stream.ended:
            self.reset(stream, ErrorCode.STREAM_CLOSED)
        elif not ended or fields is None or not requests.are_trailers(fields):
            self.reset(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            stream.receive(b"", 0, ended=True)

    def _on_request(self, block: bytes, stream_id: int, *, ended: bool) -> None:
        try:
            found = self._requests.read(block)
        except Malformed:
            self._refuse(stream_id, ErrorCode.PROTOCOL_ERROR)
            return
        if stream_id > self._accepted or max(len(self._streams), self.working) >= self.limits.streams:
            self._refuse(stream_id, ErrorCode.REFUSED_STREAM)
            return
        timeout_s = None if found is None else found.timeout_s
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        refused = requests.judge(found, self.limits.header_bytes)
        method = None if found is None or refused is not None else self._find(found.path)
        if found is None or method is None:
            answer = refused or requests.no_method(found)
            self._answer_at_once(stream_id, answer, ended=ended)
            return
        stream = self._streams[stream_id] = Stream(self, stream_id, method, found, deadline)
        if timeout_s is not None and timeout_s < SOON_S:
            self._fresh.append(stream)
        stream.begin()
        if ended:
            stream.receive(b"", 0, ended=True)

    def _answer_at_once(self, stream_id: int, block: bytes, *, ended: bool) -> None:
        self.write(frames.header_frames(stream_id, block, end_stream=True, limit=self.outflow.frame_bytes))
        if not ended:
            self.write(frames.rst_stream(stream_id, ErrorCode.NO_ERROR))
            self._tolerate(stream_id)

    def _on_priority(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:  # noqa: ARG002
        if stream_id == 0:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._nuisance()
        if end - start != 5:
            self._refuse(stream_id, ErrorCode.FRAME_SIZE_ERROR)

    def _on_rst_stream(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:  # noqa: ARG002
        self._check_length(end - start, 4)
        self._check_known(stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._nuisance()
            return
        self._remove(stream)
        self._count_reset()

    def _on_settings(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        if stream_id:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            self._check_length(end - start, 0)
            self._nuisance()
            return
        found = peer_settings.read(data[start:end])
        self._only = _ANY
        self._nuisance()
        out = self.outflow
        out.frame_bytes = found.get(frames.MAX_FRAME_SIZE, out.frame_bytes)
        initial = found.get(frames.INITIAL_WINDOW_SIZE, out.initial)
        if initial != out.initial:
            out.initial = initial
            self._widen_all()
        self.write(frames.SETTINGS_ACK)

    def _widen_all(self) -> None:
        """The initial window moved, and all streams with it."""
        out = self.outflow
        for stream in self._streams.values():
            if out.initial + stream.credit > frames.MAX_WINDOW:
                raise Violation(ErrorCode.FLOW_CONTROL_ERROR, f"the window of stream {stream.id} overflows")
            if stream.pending:
                out.enqueue(stream)
        out.pump()

    def _on_push_promise(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:  # noqa: ARG002
        raise Violation(ErrorCode.PROTOCOL_ERROR, "a client does not push")

    def _on_ping(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        if stream_id:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        self._check_length(end - start, 8)
        self._nuisance()
        payload = data[start:end]
        if not flags & ACK:
            self.write(frames.ping(payload, ack=True))
        elif payload == _DRAIN_PING and self._drained_at is not None:
            self._last_call()

    def _on_goaway(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:  # noqa: ARG002
        if stream_id:
            raise Violation(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if end - start < 8:
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY too short")
        self._nuisance()
        if self._drained_at is None:
            self._drained_at = self._loop.time()
        self._last_call()

    def _on_window_update(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:  # noqa: ARG002
        self._check_length(end - start, 4)
        increment = frames.U32.unpack_from(data, start)[0] & frames.MAX_WINDOW
        out = self.outflow
        if stream_id == 0:
            out.window += increment
            if increment == 0 or out.window > frames.MAX_WINDOW:
                code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
                raise Violation(code, f"the connection's window moved by {increment}")
            out.pump()
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        stream.credit += increment
        if increment == 0:
            self.reset(stream, ErrorCode.PROTOCOL_ERROR)
        elif out.initial + stream.credit > frames.MAX_WINDOW:
            self.reset(stream, ErrorCode.FLOW_CONTROL_ERROR)
        elif stream.pending:
            out.enqueue(stream)
            out.pump()

    # what is allowed

    def _check_length(self, length: int, wanted: int) -> None:
        if length != wanted:
            raise Violation(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes where {wanted} belong")

    def _check_known(self, stream_id: int) -> None:
        """Frames other than HEADERS and PRIORITY open no stream."""
        if stream_id == 0 or stream_id > self._last or not stream_id & 1:
            raise Violation(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} is not open")

    def _nuisance(self, tokens: float = 1.0) -> None:
        if not self._control.spend(tokens):
            raise Violation(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    def _count_reset(self) -> None:
        if not self._resets.spend() and not self._ending:
            self._end(ErrorCode.ENHANCE_YOUR_CALM, "too many calls were called off")

    def _refuse(self, stream_id: int, code: ErrorCode) -> None:
        """RST_STREAM, and patience with what is still on its way."""
        self.write(frames.rst_stream(stream_id, code))
        self._tolerate(stream_id)
        self._count_reset()

    def _tolerate(self, stream_id: int) -> None:
        self._tolerated[stream_id] = None
        if len(self._tolerated) > _TOLERATED:
            del self._tolerated[next(iter(self._tolerated))]

    # the end

    def _remove(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        stream.close()
        if not self._streams and self._accepted != frames.MAX_STREAM and not self._corked:
            self._close()

    def _drop_streams(self) -> None:
        self.outflow.clear()
        streams = list(self._streams.values())
        self._streams.clear()
        self._fresh.clear()
        for stream in streams:
            stream.close()

    def _uncork(self) -> None:
        """Everything that this turn produced leaves in one write."""
        self._corked = False
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self.write(data)
        if self._fresh:
            for stream in self._fresh:
                stream.watch_deadline()
            self._fresh.clear()
        if self._ending:
            self._linger()
            return
        if self.outflow.paused and self._unsent() - self._paused_bytes > self.limits.unsent_bytes:
            self.abort()
        elif not self._streams and self._accepted != frames.MAX_STREAM:
            self._close()

    def _unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def _last_call(self) -> None:
        """The second GOAWAY: streams above the last one that we know are refused."""
        if self._accepted == frames.MAX_STREAM and not self._ending:
            self._accepted = self._last
            self.write(frames.goaway(self._last, ErrorCode.NO_ERROR))
            if not self._streams and not self._corked:
                self._close()

    def _end(self, code: ErrorCode, text: str) -> None:
        """GOAWAY, and no more."""
        if self._ending:
            return
        log.debug("connection ended", extra={"peer": self.peer, "code": code.name, "reason": text})
        self.write(frames.goaway(self._last, code, text))
        self._ending = True
        self._since = self._loop.time()
        self._rest = bytearray()
        self._drop_streams()
        if not self._corked:
            self._linger()

    def _linger(self) -> None:
        """Close our side and read the rest away: closing with unread bytes would reset the GOAWAY out of the client's hands."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def _close(self) -> None:
        self._ending = True
        self._since = self._loop.time()
        if self._transport is not None:
            self._transport.close()


_Frame = Callable[[Http2Connection, bytes, int, int, int, int], None]
_HANDLERS: tuple[_Frame, ...] = (
    Http2Connection._on_data,  # noqa: SLF001 - the table of this class, by frame type
    Http2Connection._on_headers,  # noqa: SLF001
    Http2Connection._on_priority,  # noqa: SLF001
    Http2Connection._on_rst_stream,  # noqa: SLF001
    Http2Connection._on_settings,  # noqa: SLF001
    Http2Connection._on_push_promise,  # noqa: SLF001
    Http2Connection._on_ping,  # noqa: SLF001
    Http2Connection._on_goaway,  # noqa: SLF001
    Http2Connection._on_window_update,  # noqa: SLF001
    Http2Connection._on_continuation,  # noqa: SLF001
)


def _unpad(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Without the padding and its length."""
    if start >= end:
        raise Violation(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without its padding's length")
    padding = data[start]
    if padding >= end - start:
        raise Violation(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return start + 1, end - padding


def _peer(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""
