"""Requests to a port of ours: an ingest endpoint, and the receiver of other systems' webhooks.

A request is answered when its message is acknowledged, so that the sender knows: whoever tries again until it reads 200 loses
nothing.

    200   every required sink has confirmed, or the decision needs none
    401   no token or signature, or a wrong one
    413   the body is larger than `max_body`
    503   too many wait already, the pipeline ends, or `wait` has passed: try again, with the same id
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from inferloop.core.errors import Unavailable
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.data.config import Duration, Size
from inferloop.streams.contexts import SourceContext

log = logging.getLogger(__name__)

_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization"})
_AGAIN_S = "1"


class Signature(BaseModel):
    """HMAC-SHA256 of the body in hexadecimal digits, as GitHub and others sign their webhooks.

    Attributes:
        header: where it is.
        prefix: what stands before the digits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret: str = Field(min_length=1, repr=False)
    header: str = "X-Hub-Signature-256"
    prefix: str = "sha256="

    def fits(self, body: bytes, given: str | None) -> bool:
        """Whether a header's value is the signature of this body."""
        digest = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(f"{self.prefix}{digest}".encode(), (given or "").encode())


class HttpSource(Source):
    """Listens for POST and PUT; the payload is the body, the headers are there for `{header: NAME}`, in lower case."""

    class Config(BaseModel):
        """Where to listen, and to whom.

        Attributes:
            path: requests to other paths are answered 404.
            token: wanted as `Authorization: Bearer TOKEN`.
            signature: wanted of every body.
            max_body: of one request, in bytes.
            in_flight: requests that may wait for their acknowledgement.
            wait: how long one may; its message is finished all the same.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        port: int = Field(ge=0, le=65_535)
        host: str = "127.0.0.1"
        path: str = Field("/", pattern=r"^/")
        token: str | None = Field(None, min_length=1, repr=False)
        signature: Signature | None = None
        max_body: Annotated[Size, Field(ge=1)] = 2**20
        in_flight: int = Field(256, ge=1, le=65_535)
        wait: Annotated[Duration, Field(gt=0)] = 30.0

    durable = True
    replayable = False
    ordered = False
    caveat = "the sender keeps a message until it reads 200: one that does not try again loses it"

    def __init__(self, config: Config, context: SourceContext) -> None:
        self._config = config
        self._name = context.name
        self.in_flight = config.in_flight
        self._runner: web.AppRunner | None = None
        self._arrived: deque[Message] = deque()
        self._readable = asyncio.Event()
        self._waiting: set[asyncio.Future[bool]] = set()
        self._ending = False

    @property
    def port(self) -> int:
        """The port that it listens on; another than in the file where that says 0."""
        return int(self._runner.addresses[0][1]) if self._runner is not None else self._config.port

    async def open(self) -> None:
        """See `Source.open`. Unavailable if the port is taken."""
        app = web.Application(client_max_size=self._config.max_body)
        for method in ("POST", "PUT"):
            app.router.add_route(method, self._config.path, self._handle)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        try:
            await runner.setup()
            await web.TCPSite(runner, self._config.host, self._config.port).start()
        except OSError as error:
            await runner.cleanup()
            raise Unavailable(f"source {self._name!r}: {self._config.host}:{self._config.port}: {error.strerror}") from error
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        log.info("listening", extra={"source": self._name, "host": self._config.host, "port": self.port})

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        while not self._arrived:
            self._readable.clear()
            await self._readable.wait()
        messages = list(self._arrived)
        self._arrived.clear()
        return messages

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`: answers 200."""
        for message in messages:
            if isinstance(message.token, asyncio.Future) and not message.token.done():
                message.token.set_result(True)

    async def close(self) -> None:
        """See `Source.close`; what is not acknowledged is answered 503."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self._ending = True
        for done in self._waiting:
            if not done.done():
                done.set_result(False)
        await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not self._is_known(request, body):
            return web.Response(status=401, text="no valid token or signature\n", headers={"WWW-Authenticate": "Bearer"})
        if self._ending or len(self._waiting) >= self._config.in_flight:
            return _again("the pipeline ends" if self._ending else f"{len(self._waiting)} requests wait already")
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.add(done)
        try:
            self._arrived.append(self._message(request, body, done))
            self._readable.set()
            async with asyncio.timeout(self._config.wait):
                acknowledged = await done
        except TimeoutError:
            return _again(f"not done within {self._config.wait:g} s, and still worked on")
        finally:
            self._waiting.discard(done)
        return web.Response(text="done\n") if acknowledged else _again("the pipeline ends")

    def _is_known(self, request: web.Request, body: bytes) -> bool:
        token, signature = self._config.token, self._config.signature
        if token is not None:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {token}".encode()):
                return False
        return signature is None or signature.fits(body, request.headers.get(signature.header))

    def _message(self, request: web.Request, body: bytes, done: asyncio.Future[bool]) -> Message:
        headers = {name.lower(): value for name, value in request.headers.items() if name.lower() not in _SECRETS}
        return Message(body, self._name, time.time(), topic=request.path, headers=headers, token=done)


def _again(why: str) -> web.Response:
    return web.Response(status=503, text=f"{why}: try again\n", headers={"Retry-After": _AGAIN_S})
