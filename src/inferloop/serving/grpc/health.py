"""`grpc.health.v1`: whether the server answers, asked once or watched."""

from __future__ import annotations

import asyncio
import logging

from inferloop.core.errors import NotFound
from inferloop.net.grpc_call import Call
from inferloop.serving.grpc.messages import HEALTH, INFERENCE, message_class, parse
from inferloop.serving.grpc.rpc import Rpc, stream, unary
from inferloop.serving.services import Services

log = logging.getLogger(__name__)

_WATCH_S = 0.5
_SERVICES = ("", INFERENCE, HEALTH)


class Health:
    """The methods of the service. The server as a whole has the empty name; our services share its fate."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._request = message_class("grpc.health.v1.HealthCheckRequest")
        self._response = message_class("grpc.health.v1.HealthCheckResponse")

    def methods(self) -> dict[str, Rpc]:
        """By path."""
        return {f"/{HEALTH}/Check": unary(self._check), f"/{HEALTH}/Watch": stream(self._watch)}

    async def _check(self, _call: Call, message: bytes) -> bytes:
        service = parse(self._request, message).service
        if service not in _SERVICES:
            raise NotFound(f"no service named {service!r}", hint=f"known: {', '.join(filter(None, _SERVICES))}")
        return self._message(self._status())

    async def _watch(self, call: Call) -> None:
        """Status now and at every change, until the client leaves or the server stops."""
        service = parse(self._request, await call.recv() or b"").service
        said = ""
        while True:
            status = self._status() if service in _SERVICES else "SERVICE_UNKNOWN"
            if status != said:
                await call.send(self._message(status))
                said = status
            if self._services.draining:
                return
            await asyncio.sleep(_WATCH_S)

    def _status(self) -> str:
        is_ready = self._services.router.ready and not self._services.draining
        return "SERVING" if is_ready else "NOT_SERVING"

    def _message(self, status: str) -> bytes:
        encoded: bytes = self._response(status=status).SerializeToString()
        return encoded
