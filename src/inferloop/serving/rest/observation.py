"""Trace and log settings over REST."""

from __future__ import annotations

from typing import Any

import msgspec

from inferloop.core.errors import InvalidInput
from inferloop.net.http import Request, Response
from inferloop.serving.operations.logging import LogOperations
from inferloop.serving.operations.trace import TraceOperations
from inferloop.serving.rest.paths import Route
from inferloop.serving.services import Services


class ObservationRoutes:
    """The operations that say what the server notes down."""

    def __init__(self, services: Services) -> None:
        self._trace = TraceOperations(services)
        self._logging = LogOperations(services)
        self._services = services

    async def trace(self, request: Request, route: Route) -> Response:
        """GET, POST /v2/trace/setting and /v2/models/M/trace/setting."""
        if request.method != "POST":
            return _json(self._trace.get(route.model))
        found = self._trace.update(route.model, _patch(request))
        await self._services.spread()
        return _json(found)

    async def logging(self, request: Request, _route: Route) -> Response:
        """GET, POST /v2/logging."""
        if request.method != "POST":
            return _json(self._logging.get())
        found = self._logging.update(_patch(request))
        await self._services.spread()
        return _json(found)


def _patch(request: Request) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(request.body or b"{}")
    except msgspec.DecodeError as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput("the body is not a JSON object")
    return found


def _json(content: object) -> Response:
    return Response(200, msgspec.json.encode(content))
