"""Requests that leave a line in the access log, or carry an id of their client's."""

from __future__ import annotations

import time
from collections.abc import Awaitable

from inferloop.net.http import Request, Response
from inferloop.serving.access import Access, AccessLog, request_id

REQUEST_ID = b"x-request-id"
_HEADER = "X-Request-Id"
_PREDICTION_ID = "Inferloop-Prediction-Id"
_LEFT = 499


async def observed(request: Request, answering: Awaitable[Response], model: str, access: AccessLog | None) -> Response:
    """The answer, with the request's id; and its line in the log.

    Args:
        request: as it came in.
        answering: makes the answer.
        model: the one that the path names; empty if it names none.
        access: None for no line.
    """
    came, started = time.time(), time.perf_counter()
    name = request_id(request.headers.get(REQUEST_ID, b"").decode("latin-1"))
    response: Response | None = None
    try:
        response = await answering
        response.headers = (*response.headers, (_HEADER, name))
    finally:  # a client that left has a line, too
        if access is not None:
            line = Access(
                came,
                request.method,
                request.path,
                _LEFT if response is None else response.status,
                time.perf_counter() - started,
                len(request.body),
                0 if response is None else len(response.body),
                request.peer,
                name,
                "" if response is None else dict(response.headers).get(_PREDICTION_ID, ""),
                model,
            )
            access.record(line)
    return response
