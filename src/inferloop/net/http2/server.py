"""Listens, holds the connections, and drains: the HTTP/2 and gRPC server on asyncio, or uvloop where the loop is one."""

from __future__ import annotations

import asyncio
import logging
import ssl as tls
from contextlib import suppress
from typing import Self

from inferloop.net.grpc_call import Find
from inferloop.net.http2.connection import Http2Connection
from inferloop.net.http2.deadlines import Deadlines
from inferloop.net.http2.limits import Http2Limits
from inferloop.net.listening import listen_error

log = logging.getLogger(__name__)

_TICK_S = 0.25
_BACKLOG = 2048
_LEAVE_S = 1.0


class Http2Server:
    """A gRPC server around the methods that `find` knows.

    `async with Http2Server(find) as server:` listens; leaving it drains. All on one event loop.

    Attributes:
        limits: what one client may ask for.
        deadlines: of the calls in work.
        now: the loop's time, up to a tick ago.
        tasks: handlers of methods that stream.
    """

    def __init__(
        self,
        find: Find,
        *,
        host: str = "127.0.0.1",
        port: int = 8001,
        limits: Http2Limits | None = None,
        ssl: tls.SSLContext | None = None,
        shared: bool = False,
    ) -> None:
        """Set up; nothing is opened yet.

        Args:
            find: a method by its path; called on the loop's thread.
            host: the address to listen on.
            port: 0 takes a free one.
            limits: what one client may ask for.
            ssl: for TLS; its ALPN must offer `h2`, and a client that does not choose it is sent away.
            shared: whether other processes listen on the port too, each with a part of the connections.
        """
        self.limits = limits or Http2Limits()
        self.now = 0.0
        self.tasks: set[asyncio.Task[None]] = set()
        self._find = find
        self._address = (host, port)
        self._ssl = ssl
        self._shared = shared
        self._connections: set[Http2Connection] = set()
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._draining = False

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if self._server is None or not self._server.sockets:
            return self._address[1]
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    @property
    def calls(self) -> int:
        """How many are open on all connections."""
        return sum(connection.streams for connection in self._connections)

    async def start(self) -> None:
        """Listen.

        Raises:
            Unavailable: another process has the port.
            InvalidInput: the address is not one of this machine, or the port is not ours to take.
        """
        loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(loop)
        self.now = loop.time()
        host, port = self._address
        try:
            self._server = await loop.create_server(
                self._connection, host, port, backlog=_BACKLOG, ssl=self._ssl, reuse_port=self._shared or None
            )
        except OSError as error:
            raise listen_error(error, host, port) from error
        self._tick()

    async def drain(self, grace_s: float = 30.0) -> None:
        """Stop accepting, let every call that was taken have its answer, close; after `grace_s` end what is left."""
        self._draining = True
        if self._server is not None:
            self._server.close()
        self._empty.clear()
        for connection in list(self._connections):
            connection.drain()
        if self._connections:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), grace_s)
        if self._connections:
            log.warning("connections dropped", extra={"connections": len(self._connections), "grace_s": grace_s})
        await self._drop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()

    def opened(self, connection: Http2Connection) -> bool:
        """See `Owner.opened`."""
        full = len(self._connections) >= self.limits.connections
        self._connections.add(connection)
        return not full

    def closed(self, connection: Http2Connection) -> None:
        """See `Owner.closed`."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _connection(self) -> Http2Connection:
        return Http2Connection(self._find, self, asyncio.get_running_loop())

    async def _drop(self) -> None:
        for connection in list(self._connections):
            connection.drop()
        await self._until_empty(_LEAVE_S)
        for connection in list(self._connections):
            connection.abort()
        await self._until_empty(_LEAVE_S)
        if self._ticker is not None:
            self._ticker.cancel()
        if self.tasks:
            await asyncio.wait(set(self.tasks), timeout=_LEAVE_S)
        if self._server is not None:
            self.deadlines.close()
            await self._server.wait_closed()

    async def _until_empty(self, patience_s: float) -> None:
        self._empty.clear()
        if self._connections:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), patience_s)

    def _tick(self) -> None:
        """One timer for all connections instead of several for each call."""
        loop = asyncio.get_running_loop()
        self._ticker = loop.call_later(_TICK_S, self._tick)
        self.now = loop.time()
        for connection in list(self._connections):
            connection.check_time(self.now)
            if self._draining:
                connection.drain()
