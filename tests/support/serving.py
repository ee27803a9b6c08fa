"""A whole server on loopback: real registry, ledger, router, application and transport."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from inferloop.core.bundle import Bundle
from inferloop.data.ledger.ledger import Ledger
from inferloop.net.http_server import HttpServer
from inferloop.net.limits import HttpLimits
from inferloop.prediction.limits import Limits
from inferloop.prediction.registered import SettingsOf
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry
from inferloop.serving.grpc.front_end import GrpcFrontEnd
from inferloop.serving.grpc.transport import GrpcTransport
from inferloop.serving.keys import Keys
from inferloop.serving.operations.shared_memory import Regions
from inferloop.serving.rest.app import App
from inferloop.serving.services import Services


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; NaN and Infinity included."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Running:
    """A server and everything behind it."""

    port: int
    app: App
    server: HttpServer
    router: Router
    registry: Registry
    ledger: Ledger
    session: aiohttp.ClientSession
    grpc: GrpcFrontEnd | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """One request; `content_type="text/plain"` becomes a header. No Content-Type unless given."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        options: dict[str, Any] = {"data": body or None, "headers": named, "skip_auto_headers": ["Content-Type"]}
        async with self.session.request(method, self.url + path, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def infer(self, model: str, body: object, **headers: str) -> Reply:
        """One request of the protocol, in JSON."""
        return await self.ask("POST", f"/v2/models/{model}/infer", json.dumps(body).encode(), **headers)


@asynccontextmanager
async def serving(
    folder: Path,
    *bundles: Bundle,
    limits: Limits | None = None,
    http: HttpLimits | None = None,
    grpc: GrpcTransport | None = None,
    settings: SettingsOf | None = None,
    shared_memory: bool = False,
    keys: Keys | None = None,
) -> AsyncIterator[Running]:
    """Register bundles as champions, open all, serve over REST and, if a transport is named, gRPC, and drain at the end."""
    bounds = http or HttpLimits()
    with Registry(folder / "registry") as registry, Ledger(folder / "ledger.db") as ledger:
        names = [registry.register(bundle, alias="champion").name for bundle in bundles]
        async with Router(registry, ledger=ledger, limits=limits, settings=settings, poll_s=0.02) as router:
            await router.open(names)
            services = Services(router, ledger, body_bytes=bounds.body_bytes, regions=Regions(allowed=shared_memory), keys=keys)
            app = App(services)
            beside = GrpcFrontEnd(services, port=0, transport=grpc) if grpc is not None else nullcontext()
            async with (
                HttpServer(app.handle, port=0, limits=bounds, admit=app.admit) as server,
                beside as front_end,
                aiohttp.ClientSession() as session,
            ):
                yield Running(server.port, app, server, router, registry, ledger, session, front_end)


def row(*values: float, **changes: Any) -> dict[str, Any]:
    """A request with one row of FP32 for the input `x`."""
    array = np.array([values], np.float32)
    return {"inputs": [{"name": "x", "shape": list(array.shape), "datatype": "FP32", "data": list(values)}], **changes}
