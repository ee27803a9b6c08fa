"""One HTTP/1.1 connection: requests in, answers out in the order of the requests."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Protocol, cast

from inferloop.core.errors import Overloaded
from inferloop.core.work import Drive, Work
from inferloop.net.http import Request, Response, StreamedResponse, encode, error_response, refusal
from inferloop.net.http_reader import Admit, Phase, RequestReader
from inferloop.net.http_stream import Pouring
from inferloop.net.known_heads import KnownHeads
from inferloop.net.limits import HttpLimits
from inferloop.net.tls import subject
from inferloop.net.uptake import Uptake

log = logging.getLogger(__name__)

_REFUSED = Request("GET", "/", keep_alive=False)

_QUIET_S = 0.2

Handler = Callable[[Request], Work[Response]] | Callable[[Request], Coroutine[Any, Any, Response]]
"""Makes the answer to one request; called on the loop's thread."""


class Owner(Protocol):
    """Who holds the connections: the server."""

    limits: HttpLimits
    draining: bool
    admit: Admit | None
    known: KnownHeads

    def opened(self, connection: Connection) -> bool:
        """Take a connection in; False if there are too many."""
        ...

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        ...


class Exchange:
    """A request on its way to its answer."""

    __slots__ = ("request", "response", "work")

    def __init__(self, request: Request, response: Response | None = None, work: Work[Response] | Pouring | None = None) -> None:
        self.request = request
        self.response = response
        self.work = work


class Connection(asyncio.Protocol):
    """Reads, dispatches, writes. Everything runs on the loop's thread.

    At most `limits.pipelined` requests are in work; the rest wait, and the socket is not read meanwhile. A handler that
    raises is a 500 and a log line; nothing that a peer sends or does ends the loop.
    """

    __slots__ = ("_closing", "_exchanges", "_expecting", "_handler", "_loop", "_owner", "_pouring", "_reader", "_reading",
                 "_since", "_starting", "_transport", "_uptake", "_waiting")  # fmt: skip

    def __init__(self, handler: Handler, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = handler
        self._owner = owner
        self._loop = loop
        self._reader = RequestReader(owner.limits, clock=loop.time, expect=self._on_expect, admit=owner.admit, known=owner.known)
        self._exchanges: deque[Exchange] = deque()
        self._waiting: deque[Request | Response] = deque()
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._expecting = False
        self._closing = False
        self._starting = False
        self._since = loop.time()
        self._uptake: Uptake | None = None  # while the client reads slower than we answer
        self._pouring: Pouring | None = None

    @property
    def busy(self) -> bool:
        """Whether a request has begun to arrive, is in work or waits for its answer to leave."""
        return bool(self._exchanges or self._waiting) or self._reader.phase in (Phase.HEAD, Phase.BODY)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not subclass it
        self._reader.subject = subject(transport)
        self._reader.peer = peer(transport)
        if not self._owner.opened(self):
            hint = "close connections that you no longer use, or raise the limit of the server"
            error = Overloaded(f"more than {self._owner.limits.connections} connections are open", hint=hint)
            self._write(Exchange(_REFUSED, error_response(error)), close=True)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """See `asyncio.Protocol`: the client has left, its work is called off."""
        self._closing = True
        self._transport = None
        self._waiting.clear()
        for exchange in list(self._exchanges):
            if exchange.work is not None:
                exchange.work.cancel()
        self._exchanges.clear()
        self._owner.closed(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._closing:
            return
        try:
            for item in self._reader.feed(data):
                self._take(item)
            if self._expecting:
                self._expect()
        except Exception:  # the loop outlives a defect of ours
            log.exception("connection failed")
            self._take(refusal(500, "internal error"))
        self._throttle()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`. A closed and a half-closed client look the same; both are taken to have left."""
        return False

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: the client reads slower than we answer."""
        self._uptake = Uptake(self._loop.time(), self._unsent)
        if self._pouring is not None:
            self._pouring.pause()
        self._throttle()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._uptake = None
        if self._pouring is not None:
            self._pouring.resume()
        self._start_waiting()

    def drain(self, now: float) -> None:
        """Close if nothing is owed and the client has been quiet: one that just got an answer may be sending already."""
        if not self.busy and not self._closing and now - max(self._reader.since, self._since) >= _QUIET_S:
            self._close()

    def abort(self) -> None:
        """Drop the connection and what it still waits for."""
        if self._transport is not None:
            self._transport.abort()

    def check_time(self, now: float) -> None:
        """Called every now and then: close what idles, hangs or lingers."""
        limits = self._owner.limits
        if self._unsent and (self._uptake is not None or self._closing):
            self._check_uptake(now, limits)
        elif self._closing:
            if now - self._since > limits.linger_s:
                self.abort()
        elif not self._exchanges and not self._waiting:
            self._check_input(now, limits)

    @property
    def _unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def _check_uptake(self, now: float, limits: HttpLimits) -> None:
        if self._uptake is None:
            self._uptake = Uptake(self._since, self._unsent)
        if self._uptake.is_late(now, self._unsent, patience_s=limits.write_s, rate=limits.body_rate):
            self.abort()
        elif self._closing:
            self._since = now  # it lingers from the last byte on

    def _check_input(self, now: float, limits: HttpLimits) -> None:
        reader = self._reader
        if reader.phase is Phase.IDLE:
            if now - max(reader.since, self._since) > limits.idle_s:
                self._close()
        elif now - reader.since > _patience(reader, limits):
            late = reader.refuse_late()
            if late is not None:
                self._take(late)

    def _take(self, item: Request | Response) -> None:
        if self._waiting or self._uptake is not None or len(self._exchanges) >= self._owner.limits.pipelined:
            self._waiting.append(item)
        else:
            self._start(item)

    def _start(self, request: Request | Response) -> None:
        if isinstance(request, Response):  # a refusal: the last answer of this connection
            self._exchanges.append(Exchange(_REFUSED, request))
            self._flush()
            return
        exchange = Exchange(request)
        self._exchanges.append(exchange)

        def done(response: Response | None, error: BaseException | None) -> None:
            exchange.work = None
            exchange.response = response if response is not None else self._failed(error)
            self._flush()

        try:
            found: Any = self._handler(request)
            work: Work[Response] = Drive(found) if type(found) is CoroutineType else found
            exchange.work = work
            work.start(done)
        except Exception as error:  # a defect of the handler: it is answered, and so is what follows it
            if exchange.response is None:
                done(None, error)

    def _failed(self, error: BaseException | None) -> Response:
        if not isinstance(error, asyncio.CancelledError):
            log.error("request failed", exc_info=error)
        return refusal(500, "internal error")

    def _flush(self) -> None:
        """Write the answers that are ready, up to the first that is not."""
        exchanges = self._exchanges
        while exchanges and exchanges[0].response is not None and not self._closing:
            exchange = exchanges.popleft()
            self._write(exchange, close=not exchange.request.keep_alive or self._is_last())
        if not exchanges and self._expecting and not self._closing:
            self._expect()
        if self._waiting or not self._reading:
            self._start_waiting()

    def _is_last(self) -> bool:
        return self._owner.draining and not self.busy

    def _write(self, exchange: Exchange, *, close: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or exchange.response is None:
            return
        self._since = self._loop.time()
        if type(exchange.response) is StreamedResponse:
            self._pour(exchange, exchange.response, transport, close=close)
            return
        transport.write(encode(exchange.response, exchange.request, close=close))
        if close:
            self._linger()

    def _pour(self, exchange: Exchange, response: StreamedResponse, transport: asyncio.Transport, *, close: bool) -> None:
        """Send an answer as it is made; it stays at the head of the queue until its end."""
        pouring = self._pouring = Pouring(response, exchange.request, close=close)
        self._exchanges.appendleft(Exchange(exchange.request, None, pouring))

        def done() -> None:
            self._pouring = None
            self._since = self._loop.time()
            self._exchanges.popleft()
            if pouring.closes or self._is_last():
                self._linger()
            else:
                self._flush()

        if self._uptake is not None:
            pouring.pause()
        pouring.start(transport, done)

    def _start_waiting(self) -> None:
        if self._starting:  # called by an answer that came at once: the loop below goes on
            return
        self._starting = True
        limit = self._owner.limits.pipelined
        while self._waiting and len(self._exchanges) < limit and self._uptake is None and not self._closing:
            self._start(self._waiting.popleft())
        self._starting = False
        self._throttle()

    def _throttle(self) -> None:
        """Read the socket only while the client takes its answers and its requests find room."""
        transport = self._transport
        wanted = self._closing or (self._uptake is None and not self._waiting)
        if transport is None or transport.is_closing() or wanted is self._reading:
            return
        self._reading = wanted
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _on_expect(self) -> None:
        """A client waits for `100 Continue`; requests of the same bytes are not taken yet."""
        self._expecting = True

    def _expect(self) -> None:
        """`100 Continue`, once the answers before it have left, to a client that still holds its body back."""
        if self._exchanges or self._waiting:
            return
        self._expecting = False
        if self._reader.phase is Phase.BODY and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _linger(self) -> None:
        """Close our side and read the rest away: closing with unread bytes would reset the answer out of the client's hands."""
        self._closing = True
        self._waiting.clear()
        transport = self._transport
        if transport is None:
            return
        if self._reader.phase is Phase.OVER:
            if transport.can_write_eof():  # TLS cannot: `check_time` closes
                transport.write_eof()
            self._throttle()
        else:
            transport.close()

    def _close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()


def peer(transport: asyncio.BaseTransport) -> str:
    """`127.0.0.1:51234`; empty where there is none."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return ""
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"


def _patience(reader: RequestReader, limits: HttpLimits) -> float:
    """How long the present part of a request may take; a large body on a slow line gets the time that it needs."""
    if reader.phase is Phase.HEAD:
        return limits.header_s
    return limits.body_s + reader.received_bytes / limits.body_rate
