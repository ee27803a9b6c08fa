"""The model repository over REST: index, load, unload."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from inferloop.core.errors import InvalidInput
from inferloop.net.http import Request, Response
from inferloop.serving.operations.repository import Repository
from inferloop.serving.rest.paths import Route
from inferloop.serving.services import Services


class _Index(msgspec.Struct):
    ready: bool = False


class _Change(msgspec.Struct):
    parameters: dict[str, Any] = {}


_Form = TypeVar("_Form", bound=msgspec.Struct)


class RepositoryRoutes:
    """The operations that change what is open."""

    def __init__(self, services: Services) -> None:
        self._repository = Repository(services.router, services.changes)

    async def index(self, request: Request, _route: Route) -> Response:
        """POST /v2/repository/index: `{"ready": true}` for those that answer only; the body may be empty."""
        asked = _read(request.body, _Index)
        return Response(200, msgspec.json.encode(self._repository.index(asked.ready)))

    async def load(self, request: Request, route: Route) -> Response:
        """POST /v2/repository/models/M/load: answers with an empty body when the model does."""
        await self._repository.load(route.model, _read(request.body, _Change).parameters)
        return Response(200, b"")

    async def unload(self, request: Request, route: Route) -> Response:
        """POST /v2/repository/models/M/unload: `{"parameters": {"unload_dependents": true}}`; the body may be empty."""
        dependents = _read(request.body, _Change).parameters.get("unload_dependents", False)
        if not isinstance(dependents, bool):
            raise InvalidInput(f"parameter 'unload_dependents' is {dependents!r}, it must be true or false")
        await self._repository.unload(route.model, dependents)
        return Response(200, b"")


def _read(body: bytes, form: type[_Form]) -> _Form:
    """The body of a request; an empty one says nothing, as clients send it."""
    if not body.strip():
        return form()
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(f"the body is not what this path takes: {error}") from error
