"""ModelInfer, the hot path: message bytes in, message bytes out, no Task and no copy of a tensor on the way in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing

from inferloop.core.errors import InferloopError, InvalidInput
from inferloop.net.grpc_call import Call
from inferloop.serving.grpc.answers import Answers
from inferloop.serving.grpc.messages import INFERENCE
from inferloop.serving.grpc.plain import SOURCE, PlainInference, first
from inferloop.serving.grpc.requests import AskedOutput, InferRequest, Parameter, Parameters, Requests, region_of
from inferloop.serving.grpc.rpc import PREDICTION_ID, Rpc, tell_hint, unary
from inferloop.serving.operations.inference import Answered, Asked, Inferences, Wanted
from inferloop.serving.services import Services

_KEY = "inferloop-key"
_TRACE = "traceparent"
_ID_PARAMETER = "inferloop_prediction_id"


class Inference:
    """The method that predicts.

    A request of nothing but tensors goes straight to the router; one with parameters, outputs or shared memory takes the way
    that REST takes, `operations.inference`.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._router = services.router
        self._inferences = Inferences(services)
        self._requests = Requests()
        self._answers = Answers()

    def methods(self) -> dict[str, Rpc]:
        """By path."""
        return {f"/{INFERENCE}/ModelInfer": unary(self.infer)}

    def infer(self, call: Call, message: bytes) -> Awaitable[bytes]:
        """Answer one `ModelInferRequest` with one `ModelInferResponse`."""
        try:
            request = self._requests.read(message)
        except InferloopError as error:
            tell_hint(call, error)
            raise
        if request.plan.is_plain and self._services.tracer is None:
            return PlainInference(self._router, self._answers, call, request)
        return self._infer(call, request)

    async def _infer(self, call: Call, request: InferRequest) -> bytes:
        try:
            answered = await self._inferences.infer(self._asked(call, request))
        except InferloopError as error:
            tell_hint(call, error)
            raise
        call.set_trailers({PREDICTION_ID: answered.id})
        return self._encoded(request, answered, {})

    def read(self, message: bytes) -> InferRequest:
        """A request; see `Requests.read`."""
        return self._requests.read(message)

    def is_decoupled(self, request: InferRequest) -> bool:
        """Whether the request may get no, one or many answers."""
        try:
            return self._router.predictor(request.plan.model, version=request.plan.version).decoupled
        except InferloopError:  # it will be told to who asks for the answers
            return False

    async def answers(self, call: Call, request: InferRequest) -> AsyncGenerator[bytes, None]:
        """Every answer to a request of a stream, each a `ModelInferResponse`. Errors as `Inferences.stream`.

        Trailing metadata belong to the call, so the prediction id of each answer is one of its parameters.
        """
        async with aclosing(self._inferences.stream(self._asked(call, request))) as found:
            async for answered in found:
                yield self._encoded(request, answered, {_ID_PARAMETER: answered.id} if answered.id else {})

    def _asked(self, call: Call, request: InferRequest) -> Asked:
        plan = request.plan
        tensors = dict(request.tensors)
        for entry in plan.inputs:
            region = region_of(entry.parameters)
            if region is not None:
                tensors[entry.name] = self._inferences.tensor(entry.name, entry.datatype, entry.shape, region)
        return Asked(
            plan.model,
            plan.version,
            tensors,
            outputs=None if plan.outputs is None else tuple(_wanted(output) for output in plan.outputs),
            id=request.id.decode(),
            parameters=plan.parameters,
            key=first(call, _KEY),
            deadline=call.deadline,
            source=SOURCE,
            trace=first(call, _TRACE),
        )

    def _encoded(self, request: InferRequest, answered: Answered, parameters: Parameters) -> bytes:
        regions: dict[str, Parameters] = {}
        for given in answered.outputs:
            if given.written is not None and given.wanted is not None and given.wanted.region is not None:
                region = given.wanted.region
                regions[given.name] = {
                    "shared_memory_region": region.name,
                    "shared_memory_offset": region.offset,
                    "shared_memory_byte_size": given.written,
                }
        said: dict[str, Parameter] = {name: value for name, value in answered.parameters.items() if value is not None}
        return self._answers.full(
            answered.model,
            answered.version,
            request.id,
            {given.name: given.array for given in answered.outputs},
            parameters={**said, **parameters},
            is_raw=request.is_raw,
            regions=regions,
        )


def _wanted(output: AskedOutput) -> Wanted:
    count = output.parameters.get("classification", 0)
    if type(count) is not int or count < 0:
        raise InvalidInput(f"output {output.name!r}: classification must be a count of classes, got {count!r}")
    return Wanted(output.name, None, count, region_of(output.parameters))
