"""System and CUDA shared memory over REST: status, register, unregister. The region's name is in the route's `model`."""

from __future__ import annotations

from typing import Any

import msgspec

from inferloop.core.errors import InvalidInput
from inferloop.net.http import Request, Response
from inferloop.serving.operations.shared_memory import CudaRegions
from inferloop.serving.rest.paths import Route
from inferloop.serving.services import Services


class _System(msgspec.Struct):
    key: str
    byte_size: int
    offset: int = 0


class SharedMemoryRoutes:
    """The operations on regions."""

    def __init__(self, services: Services) -> None:
        self._system = services.regions
        self._cuda = CudaRegions()

    async def status(self, _request: Request, route: Route) -> Response:
        """GET /v2/systemsharedmemory[/region/R]/status."""
        return _json(self._system.status(route.model))

    async def register(self, request: Request, route: Route) -> Response:
        """POST /v2/systemsharedmemory/region/R/register: `{"key": "/frames", "offset": 0, "byte_size": 602112}`."""
        try:
            asked = msgspec.json.decode(request.body, type=_System)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidInput(f"the body is not what this path takes: {error}") from error
        self._system.register(route.model, asked.key, asked.offset, asked.byte_size)
        return Response(200, b"")

    async def unregister(self, _request: Request, route: Route) -> Response:
        """POST /v2/systemsharedmemory[/region/R]/unregister."""
        self._system.unregister(route.model)
        return Response(200, b"")

    async def cuda_status(self, _request: Request, route: Route) -> Response:
        """GET /v2/cudasharedmemory[/region/R]/status: there is none."""
        return _json(self._cuda.status(route.model))

    async def cuda_register(self, _request: Request, route: Route) -> Response:
        """POST /v2/cudasharedmemory/region/R/register: 501."""
        self._cuda.register(route.model)
        return Response(200, b"")

    async def cuda_unregister(self, _request: Request, route: Route) -> Response:
        """POST /v2/cudasharedmemory[/region/R]/unregister."""
        self._cuda.unregister(route.model)
        return Response(200, b"")


def _json(content: Any) -> Response:
    return Response(200, msgspec.json.encode(content))
