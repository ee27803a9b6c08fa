"""GET /openapi.json: the OpenAPI 3.1 document of the routes that this server has, made from the table that routes them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from inferloop.net.http import Request, Response
from inferloop.serving.rest.openapi_schemas import ANSWERS, BODIES, SCHEMAS, SUMMARIES
from inferloop.serving.rest.paths import Route, patterns
from inferloop.serving.scopes import Need, of_operation
from inferloop.serving.services import Services

_PARAMETER = re.compile(r"\{(\w+)\}")
_KINDS: dict[str, dict[str, Any]] = {
    "model": {"type": "string", "minLength": 1},
    "region": {"type": "string", "minLength": 1},
    "version": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
}
_REFUSED = {
    "400": "The request is wrong; the message says where.",
    "404": "No such model, version, prediction or path.",
    "405": "Another method is meant; `Allow` names it.",
    "406": "Answers are not offered in another form.",
    "408": "The request came too slowly.",
    "409": "It exists already, or changed meanwhile.",
    "413": "The body is larger than the limit.",
    "415": "The `Content-Encoding` or `Content-Type` is not known.",
    "417": "The expectation is not known.",
    "431": "The headers are larger than the limit.",
    "500": "A fault of the server or of a model.",
    "501": "Understood, and not offered.",
    "503": "Full or not ready; `Retry-After` says when to ask again.",
    "504": "The deadline came before the answer.",
}
_WITH_KEYS = {"401": "No key was sent, or one that is not known.", "403": "The key lacks the scope."}


class OpenApiRoutes:
    """The document; made at the first request, the same until the server ends."""

    def __init__(self, services: Services) -> None:
        self._keys = services.keys is not None
        self._body = b""

    async def document(self, _request: Request, _route: Route) -> Response:
        """GET /openapi.json. It names no model, so it needs no key."""
        self._body = self._body or msgspec.json.encode(document(keys=self._keys))
        return Response(200, self._body)


def document(*, keys: bool = False) -> dict[str, Any]:
    """The document as a value.

    Args:
        keys: whether the server asks for keys.
    """
    content: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "inferloop", "version": "2", "description": "The Open Inference Protocol v2, raw inputs, feedback."},
        "paths": {template: _path(template, route, keys) for template, route in sorted(patterns().items())},
        "components": {"schemas": SCHEMAS, "responses": {"Error": _error()}},
    }
    if keys:
        content["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return content


def _path(template: str, route: Route, keys: bool) -> dict[str, Any]:
    operations: dict[str, Any] = {method.lower(): _operation(template, route, method, keys) for method in route.methods}
    names = _PARAMETER.findall(template)
    if names:
        operations["parameters"] = [{"name": name, "in": "path", "required": True, "schema": _KINDS[name]} for name in names]
    return operations


def _operation(template: str, route: Route, method: str, keys: bool) -> dict[str, Any]:
    need = of_operation(route.name, method)
    names = _PARAMETER.findall(template)
    qualified = f"{route.name}_of_{names[-1]}" if names and not route.name.endswith(f"_of_{names[-1]}") else route.name
    content: dict[str, Any] = {
        "operationId": f"{method.lower()}_{qualified}",
        "summary": SUMMARIES.get(route.name, route.name.replace("_", " ")),
        "responses": _responses(route.name, method, keys and need is not Need.OPEN),
    }
    if method not in ("GET", "HEAD") and route.name in BODIES:
        content["requestBody"] = BODIES[route.name]
    if keys and need is not Need.OPEN:
        content["security"] = [{"key": []}]
        content["description"] = f"Needs a key with the scope `{need.value}`." if need is not Need.ANY else "Needs any key."
    return content


def _responses(name: str, method: str, keys: bool) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done."}
    if method != "HEAD" and name in ANSWERS:
        done["content"] = ANSWERS[name]
    refused = _REFUSED | (_WITH_KEYS if keys else {})
    if method == "HEAD":
        return {"200": done} | {status: {"description": text} for status, text in refused.items()}
    return {"200": done} | {status: {"$ref": "#/components/responses/Error"} for status in refused}


def _error() -> dict[str, Any]:
    return {
        "description": "What went wrong; the header `Inferloop-Hint` says what to do next.",
        "headers": {"Inferloop-Hint": {"schema": {"type": "string"}}},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
