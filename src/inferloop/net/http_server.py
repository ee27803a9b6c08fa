"""Listens, holds the connections, and drains: the HTTP/1.1 server on asyncio, or uvloop where the loop is one."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Self

from inferloop.net.http_connection import Connection, Handler
from inferloop.net.http_reader import Admit
from inferloop.net.known_heads import KnownHeads
from inferloop.net.limits import HttpLimits
from inferloop.net.listening import listen_error
from inferloop.net.tls import Tls, TlsSettings

log = logging.getLogger(__name__)

_TICK_S = 0.1
_BACKLOG = 2048


class HttpServer:
    """An HTTP/1.1 server around one handler.

    `async with HttpServer(handler) as server:` listens; leaving it drains. All on one event loop.

    Attributes:
        draining: no further request is taken; connections close after the answers that they are owed.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        limits: HttpLimits | None = None,
        admit: Admit | None = None,
        tls: TlsSettings | None = None,
        shared: bool = False,
    ) -> None:
        """Set up; nothing is opened yet.

        Args:
            handler: makes the answer to one request; called on the loop's thread. It must not use `asyncio.timeout` of its
                own (see `core/work.py`), and is cancelled when its client leaves.
            host: the address to listen on.
            port: 0 takes a free one.
            limits: what one client may ask for.
            admit: asked before a large body is read; see `RequestReader`.
            tls: certificate and key; None serves in the clear.
            shared: whether other processes listen on the port too, each with a part of the connections.

        Raises:
            InvalidInput: certificate and key cannot be used.
        """
        self.limits = limits or HttpLimits()
        self.admit = admit
        self.known = KnownHeads()
        self._tls = Tls(tls, alpn=("http/1.1",)) if tls is not None else None
        self.draining = False
        self._handler = handler
        self._address = (host, port)
        self._shared = shared
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

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

    async def start(self) -> None:
        """Listen.

        Raises:
            Unavailable: another process has the port.
            InvalidInput: the address is not one of this machine, or the port is not ours to take.
        """
        loop = asyncio.get_running_loop()
        host, port = self._address
        try:
            self._server = await loop.create_server(
                lambda: Connection(self._handler, self, loop),
                host,
                port,
                backlog=_BACKLOG,
                reuse_port=self._shared or None,
                **self._secured(),
            )
        except OSError as error:
            raise listen_error(error, host, port) from error
        self._tick()

    async def drain(self, grace_s: float = 30.0) -> None:
        """Stop accepting, let every request that was taken have its answer, close; after `grace_s` drop what is left."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        self._empty.clear()
        now = asyncio.get_running_loop().time()
        for connection in list(self._connections):
            connection.drain(now)
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

    def opened(self, connection: Connection) -> bool:
        """See `Owner.opened`."""
        full = len(self._connections) >= self.limits.connections
        self._connections.add(connection)
        return not full

    def closed(self, connection: Connection) -> None:
        """See `Owner.closed`."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _secured(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        return {
            "ssl": self._tls.context,
            "ssl_handshake_timeout": self.limits.header_s,
            "ssl_shutdown_timeout": self.limits.linger_s,
        }

    async def _drop(self) -> None:
        for connection in list(self._connections):
            connection.abort()
        if self._ticker is not None:
            self._ticker.cancel()
        for _ in range(100):  # `connection_lost` comes a turn of the loop after `abort`
            if not self._connections:
                break
            await asyncio.sleep(0.01)
        if self._server is not None:
            await self._server.wait_closed()

    def _tick(self) -> None:
        """One timer for all connections instead of several for each request."""
        loop = asyncio.get_running_loop()
        self._ticker = loop.call_later(_TICK_S, self._tick)
        now = loop.time()
        for connection in list(self._connections):
            connection.check_time(now)
            if self.draining:
                connection.drain(now)
