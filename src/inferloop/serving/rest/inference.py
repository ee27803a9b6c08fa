"""POST .../infer: tensors by the protocol, in JSON or binary, or one raw sample: an image, a recording, text, JSON fields.

header Inference-Header-Content-Length   protocol, binary tensors after so many bytes of JSON
no body, no content type that tells      protocol, a raw tensor of no bytes
a JSON object with `inputs`              protocol, whatever the Content-Type
anything else                            a sample for the bundle's transforms, by Content-Type
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import InvalidInput, NotFound, Unsupported
from inferloop.core.work import Work
from inferloop.data.codecs import tensor_bytes
from inferloop.net.http import Request, Response
from inferloop.serving.operations.inference import Asked, Inferences
from inferloop.serving.operations.parameters import NO_PARAMETERS
from inferloop.serving.operations.refusals import unknown_model
from inferloop.serving.operations.shared_memory import Regions
from inferloop.serving.rest import messages, results
from inferloop.serving.rest.failures import unsupported
from inferloop.serving.rest.paths import Route
from inferloop.serving.rest.plain import SOURCE, PlainInference, Question, key_of, trace_of
from inferloop.serving.services import Services

_LENGTH_HEADER = b"inference-header-content-length"
_UNSAID = (b"", b"application/octet-stream", b"application/x-www-form-urlencoded")
"""What clients send that did not think of it; the last one is curl's."""

_LARGE_BYTES = 100_000
_NOTHING = memoryview(b"")
_FORMAT_ONLY = frozenset({"binary_data_output"})
_ALL_BINARY = messages.InferRequest([], parameters={"binary_data_output": True})

Answering = Work[Response] | Coroutine[Any, Any, Response]


class InferenceRoutes:
    """The operations that predict."""

    def __init__(self, services: Services) -> None:
        self._router = services.router
        self._regions = services.regions
        self._inferences = Inferences(services)
        self._services = services

    def infer(self, request: Request, route: Route) -> Answering:
        """POST /v2/models/M[/versions/V]/infer.

        Reads the request at once and returns what answers it: a request that is small and plain passes through no coroutine.
        """
        body = request.body
        length = request.headers.get(_LENGTH_HEADER)
        if length is not None or not (body or _names_content(request)):
            return self._binary(request, route, length)
        if body[:1] == b"{" or body.lstrip()[:1] == b"{":
            if _names_content(request):
                asked = _parse_declared(request)
                found = None if asked is None else (asked, messages.tensors(asked, _NOTHING, self._regions))
            elif len(body) > _LARGE_BYTES:
                return self._large(request, route, body, _NOTHING)
            else:
                found = _read_all(body, _NOTHING, self._regions)
            if found is not None:
                return self._protocol(request, route, *found)
        return self._sample(request, route)

    def _binary(self, request: Request, route: Route, length: bytes | None) -> Answering:
        size = _header_size(length, len(request.body))
        body = memoryview(request.body)
        if size == 0:
            return self._raw_tensor(request, route, body)
        if size > _LARGE_BYTES:
            return self._large(request, route, body[:size], body[size:])
        found = _read_all(body[:size], body[size:], self._regions)
        if found is None:
            raise _without_inputs()
        return self._protocol(request, route, *found)

    async def _large(self, request: Request, route: Route, text: bytes | memoryview, blobs: memoryview) -> Response:
        """Much JSON is read in a thread. The connection keeps the order of the answers."""
        found = await asyncio.get_running_loop().run_in_executor(None, _read_all, text, blobs, self._regions)
        if found is not None:
            return await self._protocol(request, route, *found)
        if isinstance(text, memoryview):
            raise _without_inputs()
        return await self._sample(request, route)

    def _protocol(self, request: Request, route: Route, asked: messages.AnyRequest, tensors: Tensors) -> Answering:
        question = Question(request, route, asked, tensors)
        if asked.outputs is None and (not asked.parameters or asked.parameters.keys() <= _FORMAT_ONLY):
            return PlainInference(self._services, question)
        return self._in_detail(question)

    async def _in_detail(self, question: Question) -> Response:
        """Some outputs, or parameters that mean something."""
        request, route, asked, tensors = question
        wanted = None if asked.outputs is None else tuple(map(messages.wanted, asked.outputs))
        parameters = asked.parameters or NO_PARAMETERS
        key, trace = key_of(request), trace_of(request)
        try:
            answer = await self._inferences.infer(
                Asked(route.model, route.version, tensors, wanted, asked.id, parameters, key, source=SOURCE, trace=trace)
            )
        except Unsupported as error:
            raise unsupported(error, self._router, route) from error
        result = results.full_result(answer, asked)
        return await results.respond_from_thread(result) if results.is_large(result) else results.respond(result)

    async def _raw_tensor(self, request: Request, route: Route, body: memoryview) -> Response:
        """The body is the only input's bytes, one row; the answer is binary."""
        try:
            bundle = self._router.bundle(route.model, version=route.version)
        except NotFound as error:
            raise unknown_model(error, self._router, route.model, route.version) from error
        tensors = {bundle.signature.inputs[0].name: _raw_input(bundle, body)}
        return await PlainInference(self._services, Question(request, route, _ALL_BINARY, tensors))

    async def _sample(self, request: Request, route: Route) -> Response:
        try:
            bundle = self._router.bundle(route.model, version=route.version)
        except NotFound as error:
            raise unknown_model(error, self._router, route.model, route.version) from error
        fields = bundle.manifest.transforms.fields
        if not fields:
            hint = f"send tensors: {', '.join(map(str, bundle.signature.inputs))}"
            raise InvalidInput(f"model {bundle.name!r} declares no transforms, so it takes no raw input", hint=hint)
        from inferloop.data.codecs.raw import sample_from_body  # 6 MB that a server of tensors never needs

        sample = sample_from_body(request.body, _content_type(request), fields)
        tracer = self._services.tracer
        ask = self._router.predict if tracer is None else tracer.around(self._router.predict, route.model, trace_of(request))
        answer = await ask(route.model, sample, version=route.version, key=key_of(request), source=SOURCE)
        return Response(200, results.prediction_json(answer), results.id_header(answer.id))


def _without_inputs() -> InvalidInput:
    return InvalidInput("the request has no 'inputs'")


def _read_all(text: bytes | memoryview, blobs: memoryview, regions: Regions) -> tuple[messages.AnyRequest, Tensors] | None:
    """A request and its arrays; None for a JSON object without `inputs`."""
    asked = messages.parse(text)
    return None if asked is None else (asked, messages.tensors(asked, blobs, regions))


def _raw_input(bundle: Bundle, body: memoryview) -> Array:
    signature = bundle.signature
    if len(signature.inputs) != 1:
        raise InvalidInput(f"model {bundle.name!r} takes {len(signature.inputs)} inputs, a raw tensor is one")
    spec = signature.inputs[0]
    shape = [1 if axis == 0 and spec.batched else size for axis, size in enumerate(spec.shape)]
    if None in shape:
        raise InvalidInput(f"input {spec.name!r} has a free axis, so its shape must be sent", hint=f"the model takes {spec}")
    if spec.dtype is DataType.BYTES:
        return tensor_bytes.one_element(bytes(body), [size or 0 for size in shape])
    return tensor_bytes.read(spec.name, spec.dtype, [size or 0 for size in shape], body)


def _names_content(request: Request) -> bool:
    named = request.headers.get(b"content-type")
    if named is None or named[:12] == b"application/":
        return False
    return named.lower().startswith((b"image/", b"audio/", b"text/"))


def _parse_declared(request: Request) -> messages.AnyRequest | None:
    """A body that is declared as text or media, and may be a request of the protocol all the same."""
    if b'"inputs"' not in request.body:
        return None
    try:
        return messages.parse(request.body)
    except InvalidInput as error:
        if isinstance(error, messages.NotJson):
            return None
        raise


def _content_type(request: Request) -> str:
    named = request.headers.get(b"content-type", b"")
    if named.partition(b";")[0].strip().lower() not in _UNSAID:
        return named.decode("latin-1")
    return "application/json" if request.body.lstrip()[:1] == b"{" else ""


def _header_size(length: bytes | None, total: int) -> int:
    if length is None:
        return 0
    if not length.isdigit() or len(length) > 18 or int(length) > total:
        got = length.decode("latin-1")
        raise InvalidInput(f"inference header size should be in range (0, {total}), got: {got}")
    return int(length)
