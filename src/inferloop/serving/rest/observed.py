"""Requests that leave a line in the access log, or carry an id of their client's."""

from __future__ import annotations

import time

from inferloop.core.work import Done, Work
from inferloop.net.http import Request, Response
from inferloop.serving.access import Access, AccessLog, request_id

REQUEST_ID = b"x-request-id"
_HEADER = "X-Request-Id"
_PREDICTION_ID = "Inferloop-Prediction-Id"
_LEFT = 499


class Observed(Work[Response]):
    """An answer with the id of its request, and with its line in the log; a client that left has a line, too."""

    __slots__ = ("_access", "_came", "_done", "_model", "_name", "_request", "_started", "_work")

    _done: Done[Response]

    def __init__(self, work: Work[Response], request: Request, model: str, access: AccessLog | None) -> None:
        """Set up.

        Args:
            work: makes the answer.
            request: as it came in.
            model: the one that the path names; empty if it names none.
            access: None for no line.
        """
        self._work: Work[Response] | None = work
        self._request = request
        self._model = model
        self._access = access
        self._name = request_id(request.headers.get(REQUEST_ID, b"").decode("latin-1"))
        self._came, self._started = time.time(), time.perf_counter()

    def start(self, done: Done[Response]) -> None:
        """See `Work.start`."""
        self._done = done
        if self._work is not None:
            self._work.start(self._take)

    def cancel(self) -> None:
        """See `Work.cancel`."""
        if self._work is not None:
            self._work.cancel()

    def _take(self, response: Response | None, error: BaseException | None) -> None:
        self._work = None  # it knows us: no circle for the garbage collector
        if response is not None:
            response.headers = (*response.headers, (_HEADER, self._name))
        if self._access is not None:
            self._access.record(self._line(response))
        self._done(response, error)

    def _line(self, response: Response | None) -> Access:
        request = self._request
        return Access(
            self._came,
            request.method,
            request.path,
            _LEFT if response is None else response.status,
            time.perf_counter() - self._started,
            len(request.body),
            0 if response is None else len(response.body),
            request.peer,
            self._name,
            "" if response is None else dict(response.headers).get(_PREDICTION_ID, ""),
            self._model,
        )
