"""The HTTP application: a request in, a response out, no transport.

    app = App(Services(router, ledger))
    response = await app.handle(Request("GET", "/v2/health/live"))

`net.http_server` and `asgi.py` put it on a socket.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from inferloop.core.errors import InferloopError, NotFound
from inferloop.core.work import Drive, Settled, Work
from inferloop.net.compress import SMALLEST, compress
from inferloop.net.decompress import decompress
from inferloop.net.http import Request, Response, error_response
from inferloop.serving.rest.access import Access
from inferloop.serving.rest.failures import MethodNotAllowed, failure
from inferloop.serving.rest.feedback import FeedbackRoutes
from inferloop.serving.rest.generate import GenerateRoutes
from inferloop.serving.rest.inference import InferenceRoutes
from inferloop.serving.rest.observation import ObservationRoutes
from inferloop.serving.rest.observed import REQUEST_ID, Observed
from inferloop.serving.rest.openapi import OpenApiRoutes
from inferloop.serving.rest.page import PageRoutes
from inferloop.serving.rest.paths import Paths, Route
from inferloop.serving.rest.plain import PlainInference
from inferloop.serving.rest.repository import RepositoryRoutes
from inferloop.serving.rest.shared_memory import SharedMemoryRoutes
from inferloop.serving.rest.status import StatusRoutes
from inferloop.serving.services import Services

Operation = Callable[[Request, Route], Awaitable[Response]]

_COMPRESSED = frozenset({"infer", "metrics", "page", "openapi"})
"""What is compressed for who asks: tritonclient's asyncio client asks always, and unpacks nothing but inference."""


class App:
    """The Open Inference Protocol v2, raw requests, feedback and metrics over REST.

    One event loop. Every error is a response, `{"error": ...}` with the hint in `Inferloop-Hint`; what is no error of ours
    is a 500 without detail, and a traceback in the log.
    """

    def __init__(self, services: Services) -> None:
        """Set up; without a ledger, feedback is answered with 501."""
        self._services = services
        self._paths = Paths()
        self._access = Access(services.keys) if services.keys is not None else None
        status = StatusRoutes(services)
        self._inference = inference = InferenceRoutes(services)
        generate = GenerateRoutes(services)
        feedback = FeedbackRoutes(services)
        repository = RepositoryRoutes(services)
        observation = ObservationRoutes(services)
        memory = SharedMemoryRoutes(services)
        self._operations: dict[str, Operation] = {
            "page": PageRoutes(services).page,
            "openapi": OpenApiRoutes(services).document,
            "server": status.server,
            "live": status.live,
            "ready": status.ready,
            "models": status.models,
            "metrics": status.metrics,
            "model": status.model,
            "model_ready": status.model_ready,
            "infer": inference.infer,
            "generate": generate.generate,
            "generate_stream": generate.generate_stream,
            "config": status.config,
            "stats": status.statistics,
            "shared_memory_status": memory.status,
            "shared_memory_register": memory.register,
            "shared_memory_unregister": memory.unregister,
            "cuda_status": memory.cuda_status,
            "cuda_register": memory.cuda_register,
            "cuda_unregister": memory.cuda_unregister,
            "feedback": feedback.one,
            "feedback_many": feedback.many,
            "repository_index": repository.index,
            "repository_load": repository.load,
            "repository_unload": repository.unload,
            "trace": observation.trace,
            "trace_of_model": observation.trace,
            "logging": observation.logging,
        }

    def stop_accepting(self) -> None:
        """Say `not ready` from now on, so that balancers look elsewhere; requests are still answered."""
        self._services.draining = True

    def admit(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Response | None:
        """Refuse a request by its headers alone, before its body is read; None lets it pass."""
        route = self._paths.find(path)
        if self._access is None or method not in route.methods:
            return None
        try:
            self._access.check(route.name, method, headers)
        except InferloopError as error:
            return error_response(error)
        return None

    def handle(self, request: Request) -> Work[Response]:
        """Answer one request, which is started or awaited at once; the only error is that it was cancelled."""
        route = self._paths.find(request.path)
        if route.name == "infer" and b"content-encoding" not in request.headers:
            work = self._infer(request, route)
        else:
            work = Drive(self._answer(request, route))
        if self._services.access is None and REQUEST_ID not in request.headers:
            return work
        return Observed(work, request, route.model, self._services.access)

    def _infer(self, request: Request, route: Route) -> Work[Response]:
        """The hot path: what is plain passes no coroutine."""
        try:
            self._check(request, route)
            answering = self._inference.infer(request, route)
        except Exception as error:  # one request fails, the server goes on
            return Settled(failure(request, error))
        return answering if isinstance(answering, PlainInference) else Drive(self._finished(answering, request, route))

    async def _answer(self, request: Request, route: Route) -> Response:
        try:
            operation = self._operations.get(route.name)
            if operation is None:
                raise NotFound(f"nothing at {request.path!r}", hint="GET /v2/models lists the models")
            self._check(request, route)
            if b"content-encoding" in request.headers:
                request = await self._decoded(request)
            answering = operation(request, route)
        except Exception as error:  # one request fails, the server goes on
            return failure(request, error)
        return await self._finished(answering, request, route)

    async def _finished(self, answering: Awaitable[Response], request: Request, route: Route) -> Response:
        try:
            response = await answering
            if len(response.body) >= SMALLEST and b"accept-encoding" in request.headers and route.name in _COMPRESSED:
                return await compress(response, request.headers[b"accept-encoding"])
            return response
        except Exception as error:  # one request fails, the server goes on
            return failure(request, error)

    def _check(self, request: Request, route: Route) -> None:
        if request.method not in route.methods:
            raise MethodNotAllowed(request, route)
        if self._access is not None:
            self._access.check(route.name, request.method, request.headers)

    async def _decoded(self, request: Request) -> Request:
        encoding = request.headers[b"content-encoding"].decode("latin-1")
        return request._replace(body=await decompress(request.body, encoding, limit=self._services.body_bytes))
