"""What the server says of itself: health, metadata, models, metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from inferloop.core import telemetry
from inferloop.core.errors import InvalidInput, NotFound, Unavailable
from inferloop.net.http import Request, Response
from inferloop.prediction.live import ModelState
from inferloop.serving.operations.metadata import Metadata
from inferloop.serving.operations.model_config import ModelConfigs
from inferloop.serving.operations.statistics import Statistics
from inferloop.serving.rest.paths import Route
from inferloop.serving.services import Services


class StatusRoutes:
    """The operations that read."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._router = services.router
        self._metadata = Metadata(services)
        self._configs = ModelConfigs(services)
        self._statistics = Statistics(services)

    async def live(self, _request: Request, _route: Route) -> Response:
        """GET /v2/health/live."""
        return _json({"live": True})

    async def ready(self, _request: Request, _route: Route) -> Response:
        """GET /v2/health/ready: all models answer and the server is not stopping."""
        self._metadata.server_ready()
        return _json({"ready": True})

    async def server(self, _request: Request, _route: Route) -> Response:
        """GET /v2."""
        return _json(self._metadata.server())

    async def models(self, _request: Request, _route: Route) -> Response:
        """GET /v2/models: every open model, with the versions that take traffic and why one does not."""
        return _json({"models": [self._model_state(state) for state in self._router.models()]})

    async def model(self, _request: Request, route: Route) -> Response:
        """GET /v2/models/M[/versions/V]: the tensors that it takes and gives."""
        return _json(self._metadata.model(route.model, route.version))

    async def model_ready(self, _request: Request, route: Route) -> Response:
        """GET /v2/models/M[/versions/V]/ready: 200, or 400 for a model that is unknown or not there yet."""
        if not self._metadata.model_ready(route.model, route.version):
            raise InvalidInput("Model version not ready", hint="GET /v2/models says why")
        return _json({"name": route.model, "ready": True})

    async def config(self, _request: Request, route: Route) -> Response:
        """GET /v2/models/M[/versions/V]/config."""
        return _json(self._configs.config(route.model, route.version))

    async def statistics(self, _request: Request, route: Route) -> Response:
        """GET /v2/models/M[/versions/V]/stats, and GET /v2/models/stats for all."""
        return _json(await self._statistics.total(route.model, route.version))

    async def metrics(self, _request: Request, _route: Route) -> Response:
        """GET /metrics, in the text form of Prometheus."""
        return Response(200, await asyncio.to_thread(self._services.exposition), content_type=telemetry.CONTENT_TYPE)

    def _model_state(self, state: ModelState) -> dict[str, Any]:
        content = {
            "name": state.name,
            "version": str(state.version),
            "ref": state.ref,
            "role": state.role,
            "state": state.state,
            "reason": state.reason,
        }
        try:
            bundle = self._router.bundle(state.ref)
        except (NotFound, Unavailable):
            return content
        return {**content, "labels": bundle.labels, "fields": bundle.manifest.transforms.fields}


def _json(content: Any) -> Response:
    return Response(200, msgspec.json.encode(content))
