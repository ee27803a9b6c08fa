"""Frames of a WebSocket server that we connect to: market data, telemetry, whatever is pushed to whoever listens.

connect -> `hello` texts -> frames, each one message
   ^-- again, for ever, with growing pauses, when the connection is lost or silent

When `in_flight` messages wait, the socket is not read: TCP holds up the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import aiohttp
import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.sample import Message
from inferloop.data.config import Duration, Size
from inferloop.streams.addresses import checked_url
from inferloop.streams.contexts import SourceContext
from inferloop.streams.delivery.backoff import Backoff
from inferloop.streams.sources.pulled import PulledSource

_CONNECT_S = 10.0
_GOODBYE_S = 2.0
_PROVEN_S = 10.0
"""A connection that lasted as long is not a failure of the next one: a server that hangs up at once is not hammered."""

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderValue = Annotated[str, Field(pattern=r"^[^\r\n\x00]*$")]
Hello = Annotated[
    tuple[str | dict[str, Any], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str | Mapping) else value),
]


class WebSocketSource(PulledSource):
    """One connection as a client; both kinds of frames, text and binary, are messages."""

    class Config(BaseModel):
        """Where to, who we are, and what we want to hear.

        Attributes:
            url: `ws://HOST[:PORT]/PATH`, or `wss://` for TLS.
            headers: go along with the request that opens the connection.
            token: goes along as `Authorization: Bearer TOKEN`.
            subprotocols: offered to the server, the best first.
            hello: sent after every connect: a text, or a mapping that becomes JSON, or a list of these; subscriptions, mostly.
            heartbeat: after so long without a frame the server is asked for a sign of life; after as long again, it is gone.
            max_message: a larger message ends the connection, which is made anew.
            in_flight: messages that may wait for the pipeline; from there on nothing is read from the socket.
            ca: a file with the certificates to trust; by default those of the system.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        url: str = Field(repr=False)
        headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, repr=False)
        token: Annotated[HeaderValue, Field(min_length=1)] | None = Field(None, repr=False)
        subprotocols: tuple[Annotated[str, Field(min_length=1)], ...] = ()
        hello: Hello = Field((), repr=False)
        heartbeat: Annotated[Duration, Field(gt=0)] = 30.0
        max_message: Annotated[Size, Field(ge=1)] = 4 * 10**6
        in_flight: int = Field(1024, ge=1, le=65_535)
        ca: Path | None = None

        @field_validator("url")
        @classmethod
        def _address(cls, value: str) -> str:
            return checked_url(value, "ws", "wss")

        @model_validator(mode="after")
        def _one_identity(self) -> Self:
            given = "@" in self.url.partition("://")[2].partition("/")[0], self.token is not None, self._has_authorization
            if sum(given) > 1:
                raise ValueError("must have only one of `token`, a user in `url` and a header `Authorization`")
            return self

        @property
        def _has_authorization(self) -> bool:
            return any(name.lower() == "authorization" for name in self.headers)

    durable = False
    live = True
    replayable = False
    ordered = True
    caveat = (
        "what the server sends while we are not connected, and what was read and not done with at a crash, is gone; "
        "a pipeline that is slower than the server holds it up, and a server may drop clients that are slow"
    )

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__(context.name, config.url, in_flight=config.in_flight)
        self._config = config
        self._part = f"source {context.name!r}"
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._pauses = Backoff()
        self._since: float | None = None
        self._asked = False
        """Whether a sign of life was asked for and did not come yet."""
        self._count = 0

    async def _connect(self) -> None:
        await self._pause()
        await self._disconnect()
        self._session = aiohttp.ClientSession()
        headers = dict(self._config.headers)
        if self._config.token is not None:
            headers["Authorization"] = f"Bearer {self._config.token}"
        with self._translated():
            async with asyncio.timeout(_CONNECT_S):
                self._socket = await self._session.ws_connect(
                    self._config.url,
                    headers=headers,
                    protocols=self._config.subprotocols,
                    max_msg_size=self._config.max_message,
                    autoping=False,  # a pong that waits behind data must not look like silence
                    ssl=self._trust(),
                )
                for hello in self._config.hello:
                    await self._socket.send_str(hello if isinstance(hello, str) else msgspec.json.encode(hello).decode())
        self._since, self._asked = time.monotonic(), False

    async def _pause(self) -> None:
        """Before we connect again: nothing after a connection that lasted, more and more after short ones."""
        since, self._since = self._since, None
        if since is None:
            return
        if time.monotonic() - since >= _PROVEN_S:
            self._pauses.succeeded()
        else:
            await asyncio.sleep(self._pauses.failed())

    def _trust(self) -> ssl.SSLContext | bool:
        if self._config.ca is None:
            return True
        try:
            return ssl.create_default_context(cafile=self._config.ca)
        except OSError as error:  # ssl.SSLError too
            raise InvalidInput(f"{self._part}: ca: {self._config.ca}: {error.strerror or error}") from error

    async def _fetch(self, most: int) -> Sequence[Message]:  # noqa: ARG002  # frames come one by one
        if self._socket is None:
            raise Unavailable(f"{self._part}: not connected")
        with self._translated():
            try:
                frame = await self._socket.receive(timeout=self._config.heartbeat)
            except TimeoutError:
                await self._ask(self._socket)
                return ()
            self._asked = False
            if frame.type is aiohttp.WSMsgType.PING:
                await self._socket.pong(frame.data)
        if frame.type in (aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG):
            return ()
        if frame.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            raise Unavailable(f"{self._part}: {self._ending(frame)}")
        self._count += 1
        payload = frame.data.encode() if isinstance(frame.data, str) else bytes(frame.data)
        return [Message(payload, self._name, time.time(), token=self._count)]

    async def _ask(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        if self._asked:
            raise Unavailable(f"{self._part}: no sign of life for {2 * self._config.heartbeat:g} s")
        async with asyncio.timeout(self._config.heartbeat):
            await socket.ping()
        self._asked = True

    def _ending(self, frame: aiohttp.WSMessage) -> str:
        """Why there are no more frames: the server says it, or we do."""
        if isinstance(frame.data, BaseException):
            return str(frame.data) or type(frame.data).__name__
        code = f" with code {frame.data}" if isinstance(frame.data, int) else ""
        reason = f": {frame.extra}" if frame.extra else ""
        return f"closed{code}{reason}"

    async def _confirm(self, messages: Sequence[Message]) -> None:
        """Nobody is told; there is room for others."""

    async def _disconnect(self) -> None:
        socket, self._socket = self._socket, None
        session, self._session = self._session, None
        if socket is not None:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await socket.close()
        if session is not None:
            await session.close()

    @contextlib.contextmanager
    def _translated(self) -> Any:
        """Errors of the client as ours; none of them says the address, which may hold a token."""
        try:
            yield
        except aiohttp.WSServerHandshakeError as error:
            raise Unavailable(f"{self._part}: answered {error.status} instead of a WebSocket") from error
        except aiohttp.ClientConnectorError as error:
            raise Unavailable(f"{self._part}: {error.strerror or error.os_error or type(error).__name__}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"{self._part}: {type(error).__name__}") from error
