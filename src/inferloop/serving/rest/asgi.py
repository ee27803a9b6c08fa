"""The application for any ASGI host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any

from inferloop.net.http import Request, Response, StreamedResponse, refusal
from inferloop.net.limits import HttpLimits
from inferloop.serving.rest.app import App

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AsgiApp:
    """`App` as an ASGI 3 application. The host does connections and timeouts; the limit on the body is ours."""

    def __init__(self, app: App, *, limits: HttpLimits | None = None) -> None:
        self._app = app
        self._limits = limits or HttpLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or the host's lifespan messages."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await _send(await self._answer(scope, receive), scope, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return refusal(400, "the client left")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limits.body_bytes:
                return refusal(413, f"the body is more than {self._limits.body_bytes} bytes")
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers[name] = headers[name] + b", " + value if name in headers else value
        return await self._app.handle(
            Request(scope["method"], path, scope["query_string"].decode("latin-1"), headers, bytes(body))
        )


async def _send(response: Response, scope: Scope, send: Send) -> None:
    length = () if isinstance(response, StreamedResponse) else (("content-length", str(len(response.body))),)
    pairs = (("content-type", response.content_type), *length, *response.headers)
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in pairs]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if isinstance(response, StreamedResponse):
        async with aclosing(response.pieces) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
