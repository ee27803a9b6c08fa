"""One HTTP/2 connection: how it begins, lives and ends (RFC 9113).

    socket ─ FrameReader ─┬─ Calls ─── OpenStreams ─ Stream ─ method
                          └─ Control ──┘      └─ Outflow ─ Output ─ socket

Nothing that a peer sends raises into the loop: a mistake on a stream is RST_STREAM or a status, one on the connection is GOAWAY.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol, cast

from inferloop.core.errors import Unavailable
from inferloop.net.grpc_call import Find
from inferloop.net.http2 import frames
from inferloop.net.http2.calls import Calls
from inferloop.net.http2.control import Control
from inferloop.net.http2.frame_reader import ANY, FrameReader
from inferloop.net.http2.hpack import TABLE_BYTES
from inferloop.net.http2.open_streams import OpenStreams, Server
from inferloop.net.http2.outflow import Outflow
from inferloop.net.http2.output import Output
from inferloop.net.http2.violation import ErrorCode, Violation
from inferloop.net.tls import subject
from inferloop.net.uptake import Uptake

log = logging.getLogger(__name__)

_DRAIN_PING = b"draining"
_ALIVE_PING = b"alive?  "
_LAST_CALL_S = 1.0


class Owner(Server, Protocol):
    """Who holds the connections: the server."""

    def opened(self, connection: Http2Connection) -> bool:
        """Take a connection in; False if there are too many."""
        ...

    def closed(self, connection: Http2Connection) -> None:
        """Forget a connection."""
        ...


class Http2Connection(asyncio.Protocol):
    """The socket's side of a connection. Loop thread only."""

    def __init__(self, find: Find, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        now = owner.now
        self._owner = owner
        self._loop = loop
        self._limits = owner.limits
        self._output = Output()
        self._outflow = Outflow(self._output.write, loop.call_soon)
        self._streams = OpenStreams(owner, self._output, self._outflow, end=self._end, emptied=self._emptied)
        self._reader = FrameReader(owner.limits, now)
        calls = self._calls = Calls(find, self._streams, self._reader)
        control = Control(self._streams, self._reader, pinged=self._on_pong, left=self._on_left)
        self._reader.unknown = self._streams.nuisance
        self._reader.handlers = (
            calls.data, calls.headers, control.priority, control.rst_stream, control.settings, control.push_promise, control.ping,
            control.goaway, control.window_update, calls.continuation,
        )  # fmt: skip
        self._paused_bytes = 0
        self._ending = False
        self._heard = True
        self._pinged = False
        self._since = self._idle_since = self._checked = now
        self._drained_at: float | None = None
        self._uptake: Uptake | None = None

    @property
    def streams(self) -> int:
        """How many calls are open."""
        return len(self._streams.by_id)

    @property
    def working(self) -> int:
        """How many handlers have not ended, those of closed streams included."""
        return self._streams.working

    @property
    def held_bytes(self) -> int:
        """What has come and reached no handler: parts of frames and header blocks, messages that nobody has read."""
        return self._reader.held_bytes + self._calls.held_bytes + self._streams.unread_bytes

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._output.open(cast("asyncio.Transport", transport))  # uvloop's do not subclass it
        self._streams.peer = _peer(transport)
        self._streams.subject = subject(transport)
        fits = self._owner.opened(self)
        limits = self._limits
        offered = {
            frames.HEADER_TABLE_SIZE: TABLE_BYTES,
            frames.MAX_CONCURRENT_STREAMS: limits.streams,
            frames.INITIAL_WINDOW_SIZE: limits.window_bytes,
            frames.MAX_FRAME_SIZE: limits.frame_bytes,
            frames.MAX_HEADER_LIST_SIZE: limits.header_bytes,
        }
        more = limits.connection_window_bytes - frames.DEFAULT_WINDOW
        self._output.write(frames.settings(offered) + (frames.window_update(0, more) if more > 0 else b""))
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._end(ErrorCode.INADEQUATE_SECURITY, "ALPN h2 is needed")
        elif not fits:
            self._end(ErrorCode.ENHANCE_YOUR_CALM, f"more than {limits.connections} connections are open")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """See `asyncio.Protocol`: the client has left, its calls are called off."""
        self._stop()
        self._output.lost()
        self._streams.clear()
        self._owner.closed(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. Everything that these bytes lead to at once leaves in one write."""
        self._heard = True
        if self._ending:
            return
        self._output.corked = True
        try:
            self._reader.feed(data, self._owner.now)
        except Violation as violation:
            self._end(violation.code, violation.message)
        except Exception:  # the loop outlives a defect of ours
            log.exception("connection failed")
            self._end(ErrorCode.INTERNAL_ERROR, "")
        self._output.uncork()
        self._streams.watch_deadlines()
        self._settle()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: a client that sends no more has left."""
        return False

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: the client reads slower than we answer."""
        self._outflow.paused = True
        self._paused_bytes = self._output.unsent

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._outflow.paused = False
        self._outflow.pump()

    # what the server calls

    def drain(self) -> None:
        """Tell the client to open no more streams; close when the last has its answer."""
        if self._drained_at is None and not self._ending:
            self._drained_at = self._loop.time()
            self._output.write(frames.goaway(frames.MAX_STREAM, ErrorCode.NO_ERROR) + frames.ping(_DRAIN_PING))

    def drop(self) -> None:
        """Give what is open its end, and close."""
        for stream in list(self._streams.by_id.values()):
            stream.fail(Unavailable("the server is shutting down"))
            self._streams.reset(stream, ErrorCode.CANCEL)
        self._close()

    def abort(self) -> None:
        """Drop the connection and what it still waits for."""
        self._output.abort()

    def check_time(self, now: float) -> None:
        """Called every now and then: end what idles, hangs or lingers."""
        self._streams.elapse(now - self._checked)
        self._checked = now
        if self._ending:
            self._check_ending(now)
            return
        if self._reader.late(now):
            self._end(ErrorCode.ENHANCE_YOUR_CALM, "a frame or header block took too long")
            return
        self._streams.check_time(now)
        if self._drained_at is not None and now - self._drained_at > _LAST_CALL_S:
            self._last_call()
        self._check_alive(now)

    # inside

    def _check_ending(self, now: float) -> None:
        limits, unsent = self._limits, self._output.unsent
        if not unsent:
            if now - self._since > limits.linger_s:
                self.abort()
            return
        if self._uptake is None:
            self._uptake = Uptake(self._since, unsent)
        if self._uptake.is_late(now, unsent, patience_s=limits.write_s, rate=limits.rate):
            self.abort()
        else:
            self._since = now  # it lingers from the last byte on

    def _check_alive(self, now: float) -> None:
        limits = self._limits
        open_now = bool(self._streams.by_id)
        if self._heard:
            self._heard = self._pinged = False
            self._since = now
        elif self._pinged:
            if now - self._since > limits.keepalive_s + limits.keepalive_reply_s:
                self.abort()
        elif open_now and now - self._since > limits.keepalive_s:
            self._pinged = True
            self._output.write(frames.ping(_ALIVE_PING))
        if open_now:
            self._idle_since = now
        elif now - self._idle_since > limits.idle_s and self._reader.only == ANY:
            self._end(ErrorCode.NO_ERROR, "idle")

    def _settle(self) -> None:
        """What a turn left behind: a connection to end, or a client that does not read."""
        if self._ending:
            self._output.finish()
        elif self._outflow.paused and self._output.unsent - self._paused_bytes > self._limits.unsent_bytes:
            self.abort()
        else:
            self._emptied()

    def _emptied(self) -> None:
        """Close after the last call, once no more may come."""
        if not self._streams.by_id and self._streams.accepted != frames.MAX_STREAM and not self._output.corked:
            self._close()

    def _on_pong(self, payload: bytes) -> None:
        if payload == _DRAIN_PING and self._drained_at is not None:
            self._last_call()

    def _on_left(self) -> None:
        if self._drained_at is None:
            self._drained_at = self._loop.time()
        self._last_call()

    def _last_call(self) -> None:
        """The second GOAWAY: streams above the last one that we know are refused."""
        streams = self._streams
        if streams.accepted == frames.MAX_STREAM and not self._ending:
            streams.accepted = streams.last
            self._output.write(frames.goaway(streams.last, ErrorCode.NO_ERROR))
            self._emptied()

    def _end(self, code: ErrorCode, text: str) -> None:
        """GOAWAY, and no more; our side is closed, and what still comes is read away."""
        if self._ending:
            return
        log.debug("connection ended", extra={"peer": self._streams.peer, "code": code.name, "reason": text})
        self._output.write(frames.goaway(self._streams.last, code, text))
        self._stop()
        self._streams.clear()
        if not self._output.corked:
            self._output.finish()

    def _close(self) -> None:
        self._stop()
        self._output.close()

    def _stop(self) -> None:
        """Nothing more is taken."""
        self._ending = self._streams.ending = True
        self._since = self._loop.time()
        self._reader.stop()
        self._calls.stop()


def _peer(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""
