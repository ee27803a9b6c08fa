"""POST .../generate, .../generate_stream: an object of inputs by name in, an object of outputs by name out, no tensors.

    {"text": "hello", "top": 3}   `text` is an input of the model; `top` is none, so it is a parameter of the request

`generate_stream` sends such an object for every answer, as Server-Sent Events: the way to a decoupled model over REST.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from math import prod
from typing import Any

import msgspec
import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InferloopError, InvalidInput, NotFound
from inferloop.core.signature import Signature, TensorSpec
from inferloop.net.http import Request, Response, StreamedResponse
from inferloop.serving.operations.inference import Answered, Asked, Inferences
from inferloop.serving.operations.parameters import Value
from inferloop.serving.operations.refusals import unknown_model
from inferloop.serving.rest import tensor_json
from inferloop.serving.rest.paths import Route
from inferloop.serving.rest.results import PREDICTION_ID
from inferloop.serving.services import Services

log = logging.getLogger(__name__)

_LARGE_BYTES = 100_000
_EVENTS = "text/event-stream; charset=utf-8"
_SOURCE = "rest"


class GenerateRoutes:
    """The operations that take and give plain values."""

    def __init__(self, services: Services) -> None:
        self._router = services.router
        self._inferences = Inferences(services)

    async def generate(self, request: Request, route: Route) -> Response:
        """POST /v2/models/M[/versions/V]/generate: exactly one answer."""
        asked = await self._asked(request, route)
        async with aclosing(self._inferences.stream(asked)) as answers:
            found = [answer async for answer in _two(answers)]
        if len(found) != 1:
            hint = "use generate_stream for a model that gives any number of answers"
            raise InvalidInput("generate expects model to produce exactly 1 response", hint=hint)
        return Response(200, _content(found[0], asked.id), ((PREDICTION_ID, found[0].id),))

    async def generate_stream(self, request: Request, route: Route) -> Response:
        """POST /v2/models/M[/versions/V]/generate_stream: an event for each answer; what fails before the first is a status."""
        asked = await self._asked(request, route)
        answers = self._inferences.stream(asked)
        first = await anext(answers, None)
        headers = () if first is None else ((PREDICTION_ID, first.id),)
        return StreamedResponse(200, b"", headers, _EVENTS, pieces=_events(first, answers, asked.id))

    async def _asked(self, request: Request, route: Route) -> Asked:
        try:
            signature = self._router.predictor(route.model, version=route.version).signature
        except NotFound as error:
            raise unknown_model(error, self._router, route.model, route.version) from error
        if len(request.body) <= _LARGE_BYTES:
            asked = _read(request, route, signature)
        else:
            asked = await asyncio.get_running_loop().run_in_executor(None, _read, request, route, signature)
        return asked


async def _two(answers: AsyncGenerator[Answered, None]) -> AsyncGenerator[Answered, None]:
    """Enough to know that there is more than one."""
    first = await anext(answers, None)
    second = None if first is None else await anext(answers, None)
    for answer in (first, second):
        if answer is not None:
            yield answer


def _read(request: Request, route: Route, signature: Signature) -> Asked:
    """The values that are inputs as tensors, all others as parameters."""
    content = _parsed(request.body)
    names = {spec.name for spec in signature.inputs}
    tensors = {spec.name: _tensor(spec, content[spec.name]) for spec in signature.inputs if spec.name in content}
    request_id = "" if "id" in names else content.get("id", "")
    given = {} if "parameters" in names else content.get("parameters", {})
    if not isinstance(request_id, str) or not isinstance(given, dict):
        raise InvalidInput("the request is not as the protocol says: 'id' is a text, 'parameters' is an object")
    others = {name: value for name, value in content.items() if name not in names and name not in {"id", "parameters"}}
    return Asked(
        route.model,
        route.version,
        tensors,
        id=request_id,
        parameters=_parameters(given | others, signature),
        key=request.headers.get(b"inferloop-key", b"").decode("utf-8", "replace"),
        source=_SOURCE,
        trace=request.headers.get(b"traceparent", b"").decode("latin-1"),
    )


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        content = _lenient(body)
        if content is None:
            raise InvalidInput(f"the body is not JSON: {tensor_json.reason(error)}") from error
    if not isinstance(content, dict):
        raise InvalidInput("the body is no JSON object", hint='inputs by name: {"text": "hello"}')
    return content


def _lenient(body: bytes) -> Any:
    """What only a lenient parser reads, NaN and Infinity; None if it cannot either."""
    if b"NaN" not in body and b"Infinity" not in body:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _parameters(given: Mapping[str, Any], signature: Signature) -> dict[str, Value]:
    for name, value in given.items():
        if isinstance(value, list | dict):
            hint = f"inputs: {', '.join(spec.name for spec in signature.inputs)}"
            raise InvalidInput(
                f"{name!r} is no input of the model, and a parameter is a text, a number, true or false", hint=hint
            )
    return dict(given)


def _tensor(spec: TensorSpec, value: Any) -> Array:
    """One value, a flat list, or lists nested as the shape says."""
    data = value if isinstance(value, list) else [value]
    lengths: list[int] = []
    inner: Any = data
    while isinstance(inner, list):
        lengths.append(len(inner))
        inner = inner[0] if inner else None
    shape = _shape(spec, len(data)) if len(lengths) == 1 else lengths
    return tensor_json.read(spec.name, spec.dtype, shape, data)


def _shape(spec: TensorSpec, count: int) -> list[int]:
    """One row that holds `count` elements; the first free axis takes what the fixed ones leave, the others are 1."""
    if len(spec.shape) == 1:
        return [count]
    sizes = [1 if axis == 0 and spec.batched else size for axis, size in enumerate(spec.shape)]
    fixed = prod(size for size in sizes if size is not None)
    free = max(count // fixed, 0) if fixed else 0
    shape: list[int] = []
    for size in sizes:
        shape.append(free if size is None else size)
        free = 1 if size is None else free
    return shape


def _content(answer: Answered, request_id: str) -> bytes:
    """An answer as one JSON object; an output of one element is that element, any other is a flat list."""
    content: dict[str, Any] = {"id": request_id} if request_id else {}
    content |= {"model_name": answer.model, "model_version": answer.version}
    is_finite = True
    for given in answer.outputs:
        values = tensor_json.write(given.array)
        content[given.name] = values[0] if len(values) == 1 else values
        is_finite = is_finite and (given.array.dtype.kind != "f" or bool(np.isfinite(given.array).all()))
    return msgspec.json.encode(content) if is_finite else json.dumps(content, separators=(",", ":")).encode()


async def _events(first: Answered | None, others: AsyncGenerator[Answered, None], request_id: str) -> AsyncGenerator[bytes, None]:
    """`data: {...}` and an empty line for each answer; the last event tells what went wrong, if anything did."""
    async with aclosing(others):
        try:
            if first is not None:
                yield _event(_content(first, request_id))
            async for answer in others:
                yield _event(_content(answer, request_id))
        except InferloopError as error:
            yield _event(msgspec.json.encode({"error": error.message}))
        except Exception:  # one answer fails, the server goes on
            log.exception("streamed answer failed")
            yield _event(b'{"error":"internal error"}')


def _event(content: bytes) -> bytes:
    return b"data: " + content + b"\n\n"
