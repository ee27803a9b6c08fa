"""Messages that others POST to us. The answer is the acknowledgment: 200 means that every required sink confirmed.

    200   done with, be it as a dead letter
    400   `split`, and the body is not what it says; 401 not who it must be; 405; 413 too large: not tried again
    408   the body took too long to come
    503   too many wait, or we stop; 504 not confirmed within `wait`: send the same again, after `Retry-After`

Whoever sends keeps a message until the 200 and sends it again after every other answer of 5xx or none, so nothing is lost; with
an id in it, it is decided once. A client that leaves changes nothing: its message is finished, and found when it comes again.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from pydantic import BaseModel, ConfigDict, Field, field_validator

from inferloop.core.errors import InferloopError, InvalidInput, Overloaded, TooLarge, Unauthorized, Unavailable
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.data.config import Duration, Size
from inferloop.streams.contexts import SourceContext
from inferloop.streams.delivery.reaching import reached
from inferloop.streams.signing import SignatureCheck

log = logging.getLogger(__name__)

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_SECRET = ("Authorization", "Proxy-Authorization", "Cookie")
_RETRY_S = 1
_GOODBYE_S = 2.0
_MOST_A_READ = 1000


class _Request:
    """One body under way: how many messages it has, and how many of them, from the first on, are acknowledged."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.acknowledged = 0
        self.done = asyncio.Event()


class HttpSource(Source):
    """Listens on one address; every connection in order."""

    class Config(BaseModel):
        """Where to listen, to whom, and how much.

        Attributes:
            tokens: who sends must have one of them, as `Authorization: Bearer TOKEN`.
            hmac: who sends must sign the body; with `tokens`, both are needed.
            split: a body is one message, or one a line (NDJSON), or one an entry of a JSON list. It is answered when all are
                done; an answer of 503 or 504 says how many are, from the first on: `{"acknowledged": 3}`.
            max_body: a larger one is refused.
            body_timeout: how long a body may take to come.
            in_flight: requests that are not done; from there on the answer is 503 at once.
            wait: after so long the answer is 504, and the message is finished all the same.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        host: str = Field("127.0.0.1", min_length=1)
        port: int = Field(ge=1, le=65535)
        path: str = Field("/", pattern="^/")
        tokens: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), repr=False)
        hmac: SignatureCheck | None = None
        split: Literal["lines", "array"] | None = None
        max_body: Annotated[Size, Field(ge=1)] = 10**6
        body_timeout: Annotated[Duration, Field(gt=0)] = 30.0
        in_flight: int = Field(256, ge=1, le=65535)
        wait: Annotated[Duration, Field(gt=0)] = 30.0

        @field_validator("path")
        @classmethod
        def _plain(cls, value: str) -> str:
            if "{" in value.replace("${", "") or "?" in value or "#" in value:
                raise ValueError("must be a plain path, e.g. /events")
            return value

    durable = True
    replayable = False
    ordered = True

    def __init__(self, config: Config, context: SourceContext) -> None:
        self._config = config
        self._name = context.name
        self._server: web.AppRunner | None = None
        self._arrived: deque[Message] = deque()
        self._readable = asyncio.Event()
        self._waiting: set[_Request] = set()
        self._receiving = 0
        self._closing = asyncio.Event()

    @property
    def in_flight(self) -> int | None:
        """Messages that may be unacknowledged at a time; as many as come where a body has several."""
        return self._config.in_flight if self._config.split is None else None

    @property
    def caveat(self) -> str:
        """What `pipeline check` says of it beside the guarantee."""
        said = "the client must keep a message and send it again until it is answered 200; nothing is stored before"
        config = self._config
        if config.host in _LOOPBACK or config.tokens or config.hmac is not None:
            return said
        return f"{said}; without `tokens` or `hmac`, whoever reaches {config.host}:{config.port} can send"

    async def open(self) -> None:
        """See `Source.open`. A port that somebody else still has is waited for."""
        config = self._config
        app = web.Application(client_max_size=config.max_body)
        app.router.add_post(config.path, self._handle)
        self._server = web.AppRunner(app, access_log=None, shutdown_timeout=_GOODBYE_S)
        try:
            await self._server.setup()
            await reached(self._listen, part=f"source {self._name}", url=f"http://{config.host}:{config.port}")
        except BaseException:
            await self.close()
            raise

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        while not self._arrived:
            self._readable.clear()
            await self._readable.wait()
        return [self._arrived.popleft() for _ in range(min(len(self._arrived), _MOST_A_READ))]

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`."""
        for message in messages:
            request = message.token
            if isinstance(request, _Request):
                request.acknowledged += 1
                if request.acknowledged == request.messages:
                    self._waiting.discard(request)
                    request.done.set()

    async def close(self) -> None:
        """See `Source.close`. Who still waits is told to come again."""
        server, self._server = self._server, None
        self._closing.set()
        self._arrived.clear()
        if server is not None:
            await server.cleanup()

    async def _listen(self) -> None:
        if self._server is None:
            return
        host, port = self._config.host, self._config.port
        try:
            await web.TCPSite(self._server, host, port).start()
        except OSError as error:
            message = f"source {self._name!r} cannot listen on {host}:{port}: {error.strerror}"
            if error.errno == errno.EADDRINUSE:
                raise Unavailable(message) from error
            raise InvalidInput(message) from error

    async def _handle(self, request: web.Request) -> web.Response:
        """Answer one request; aiohttp does not cancel this when the client leaves."""
        taken: _Request | None = None
        try:
            taken = await self._taken(request)
            await self._finished(taken)
        except InferloopError as error:
            return _refusal(error.status, error.message, taken)
        except TimeoutError:
            status, what = (408, "the body took too long") if taken is None else (504, "not confirmed yet, send it again")
            return _refusal(status, what, taken)
        return _answer(200, {"acknowledged": taken.messages})

    async def _taken(self, request: web.Request) -> _Request:
        """Read a body and hand its messages on; from then on it is under way."""
        self._check_token(request.headers.get("Authorization", ""))
        if self._closing.is_set():
            raise Unavailable("closing, send it again")
        if len(self._waiting) + self._receiving >= self._config.in_flight:
            raise Overloaded(f"{self._config.in_flight} requests wait already")
        self._receiving += 1
        try:
            async with asyncio.timeout(self._config.body_timeout):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise TooLarge(f"the body is larger than {self._config.max_body} bytes") from error
        finally:
            self._receiving -= 1
        if self._config.hmac is not None:
            self._config.hmac.check(request.headers, body)
        if self._closing.is_set():
            raise Unavailable("closing, send it again")
        return self._accepted(_parts(body, self._config.split), self._headers(request.headers))

    def _accepted(self, payloads: Sequence[bytes], headers: Mapping[str, str]) -> _Request:
        taken = _Request(len(payloads))
        now = time.time()
        for payload in payloads:
            self._arrived.append(Message(payload, self._name, now, topic=self._config.path, headers=headers, token=taken))
        if payloads:
            self._waiting.add(taken)
            self._readable.set()
        else:
            taken.done.set()
        return taken

    async def _finished(self, taken: _Request) -> None:
        """Wait for the acknowledgment, the time limit or the end, whichever comes first."""
        done = asyncio.ensure_future(taken.done.wait())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({done, closing}, timeout=self._config.wait, return_when=asyncio.FIRST_COMPLETED)
        finally:
            done.cancel()
            closing.cancel()
        if taken.done.is_set():
            return
        if self._closing.is_set():
            raise Unavailable("closing, send it again")
        raise TimeoutError

    def _check_token(self, given: str) -> None:
        tokens = self._config.tokens
        scheme, _, token = given.partition(" ")
        matches = [hmac.compare_digest(token.strip().encode(), known.encode()) for known in tokens]
        if tokens and not (scheme.lower() == "bearer" and any(matches)):
            raise Unauthorized("the token is missing or wrong")

    def _headers(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """What codecs may see: no secrets; no `Idempotency-Key` that would stand for several messages."""
        headers = CIMultiDict(given)
        for name in (*_SECRET, *(("Idempotency-Key",) if self._config.split else ())):
            headers.popall(name, None)
        return CIMultiDictProxy(headers)


def _parts(body: bytes, split: str | None) -> list[bytes]:
    if split == "lines":
        return [line for line in body.splitlines() if line.strip()]
    if split == "array":
        try:
            return [bytes(part) for part in msgspec.json.decode(body, type=list[msgspec.Raw])]
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidInput("the body is no JSON list") from error
    return [body]


def _refusal(status: int, reason: str, taken: _Request | None) -> web.Response:
    content: dict[str, object] = {"error": reason}
    if taken is not None:
        content["acknowledged"] = taken.acknowledged
    return _answer(status, content)


def _answer(status: int, content: Mapping[str, object]) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status in (408, 503, 504):
        headers["Retry-After"] = str(_RETRY_S)
    return web.json_response(content, status=status, headers=headers)
