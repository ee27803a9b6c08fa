"""A request and a response as plain values, and their bytes on the wire."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple

from inferloop.core.errors import InferloopError

JSON = "application/json"
Headers = tuple[tuple[str, str], ...]

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_BODILESS = frozenset({204, 304})
_HINT_LENGTH = 1000


class Request(NamedTuple):
    """One request, complete.

    Attributes:
        path: the path as sent, percent-encoding included, without the query.
        headers: names in lower case; values of repeated headers are joined with a comma.
        body: as sent, `Content-Encoding` not undone.
        keep_alive: whether the connection may serve another request.
        http10: an HTTP/1.0 client that named `Connection`, so that it must be told that the connection stays.
        subject: of the client's verified certificate; empty without one.
        peer: the client's address, for logs; empty where it is not known.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[bytes, bytes] = {}
    body: bytes = b""
    keep_alive: bool = True
    http10: bool = False
    subject: str = ""
    peer: str = ""


@dataclass(slots=True)
class Response:
    """One answer; not frozen because one is made for every request, and a frozen one costs a microsecond."""

    status: int
    body: bytes = b""
    headers: Headers = ()
    content_type: str = JSON


@dataclass(slots=True)
class StreamedResponse(Response):
    """One answer that is sent piece by piece as it is made, without a length.

    Attributes:
        pieces: its body; closed by who sends it, at the end or when the client leaves.
    """

    pieces: AsyncGenerator[bytes, None] = field(kw_only=True)


def error_response(error: InferloopError, headers: Headers = ()) -> Response:
    """The answer to an error of ours: exactly `{"error": message}`, the hint as a header."""
    return refusal(error.status, error.message, hint=error.hint, headers=(*headers, *_retry_after(error)))


def refusal(status: int, message: str, *, hint: str = "", headers: Headers = ()) -> Response:
    """The answer to a request that is refused with `status`."""
    hints = (("Inferloop-Hint", header_text(hint)),) if hint else ()
    return Response(status, json.dumps({"error": message}).encode(), (*headers, *hints))


def header_text(text: str) -> str:
    """Text that is safe in a header: one line, ASCII, of a bounded length."""
    line = " ".join(text.split())[:_HINT_LENGTH]
    return line.encode("ascii", "backslashreplace").decode("ascii")


def encode(response: Response, request: Request, *, close: bool) -> bytes:
    """The bytes of an answer; without the body if the request was a HEAD."""
    body = response.body
    status_line = _STATUS_LINES.get(response.status) or f"HTTP/1.1 {response.status} Unknown\r\n"
    head = f"{status_line}Content-Type: {response.content_type}\r\nContent-Length: {len(body)}\r\n"
    for name, value in response.headers:
        head += f"{name}: {value}\r\n"
    if close:
        head += "Connection: close\r\n\r\n"
    else:
        head += "Connection: keep-alive\r\n\r\n" if request.http10 else "\r\n"
    if request.method == "HEAD" or response.status in _BODILESS:
        return head.encode("latin-1", "replace")
    return head.encode("latin-1", "replace") + body


def _retry_after(error: InferloopError) -> Headers:
    if error.status != HTTPStatus.SERVICE_UNAVAILABLE:
        return ()
    seconds = float(getattr(error, "retry_after_s", 1.0))
    return (("Retry-After", str(max(1, round(seconds)))),)
