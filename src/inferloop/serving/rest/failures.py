"""Whatever goes wrong with a request, as its answer."""

from __future__ import annotations

import logging

from inferloop.core.errors import InferloopError, NotFound, Unavailable, Unsupported
from inferloop.net.http import Request, Response, error_response, refusal
from inferloop.prediction.router import Router
from inferloop.serving.rest.paths import Route

log = logging.getLogger(__name__)


class MethodNotAllowed(InferloopError):
    """The path is known, the method is not one of its own.

    Attributes:
        allowed: the methods of the path.
    """

    status = 405
    grpc_code = "UNIMPLEMENTED"

    def __init__(self, request: Request, route: Route) -> None:
        self.allowed = ", ".join(route.methods)
        super().__init__(f"{request.method} is not allowed at {request.path!r}", hint=f"allowed: {self.allowed}")


def failure(request: Request, error: Exception) -> Response:
    """`{"error": ...}` with the hint in `Inferloop-Hint`; what is no error of ours is a 500 without detail, and logged."""
    if not isinstance(error, InferloopError):
        log.error("request failed", exc_info=error, extra={"path": request.path})
        return refusal(500, "internal error")
    if error.status >= 500:
        log.warning("request failed", extra={"path": request.path, "status": error.status, "error": error.message})
    return error_response(error, (("Allow", error.allowed),) if isinstance(error, MethodNotAllowed) else ())


def unsupported(error: Unsupported, router: Router, route: Route) -> Unsupported:
    """What to say of a model that gives several answers, or none, to a request."""
    try:
        decoupled = router.predictor(route.model, version=route.version).decoupled
    except (NotFound, Unavailable):  # unloaded meanwhile
        return error
    if not decoupled:
        return error
    hint = "use gRPC's ModelStreamInfer, or generate_stream"
    return Unsupported("HTTP end point doesn't support models with decoupled transaction policy", hint=hint)
