"""The one way in for tensors: a request as values, its answer as values, whatever the wire.

REST, gRPC ── Asked ── Inferences ── Router ── Answered ── REST, gRPC
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import NamedTuple

from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import InvalidInput, NotFound
from inferloop.data.codecs import tensor_bytes
from inferloop.prediction.options import NO_OPTIONS
from inferloop.prediction.prediction import Inference
from inferloop.prediction.servable import Servable
from inferloop.serving.operations.classification import classify
from inferloop.serving.operations.parameters import (
    EMPTY_FINAL_RESPONSE,
    FINAL_RESPONSE,
    NO_PARAMETERS,
    Parameters,
    Value,
    deadline_of,
    flag,
    options_of,
)
from inferloop.serving.operations.refusals import explained
from inferloop.serving.operations.shared_memory import Region
from inferloop.serving.services import Services


class Wanted(NamedTuple):
    """An output that the client named.

    Attributes:
        binary: whether it wants bytes; None if it does not say. For the front end only.
        classification: how many of the best classes it wants instead of the values; 0 for the values.
        region: where the bytes are to be laid down; None sends them with the answer.
    """

    name: str
    binary: bool | None = None
    classification: int = 0
    region: Region | None = None


class Asked(NamedTuple):
    """One request for inference.

    Attributes:
        version: None for the one that the server chooses.
        tensors: every input, by name; those in shared memory are read already, see `Inferences.tensor`.
        outputs: in the order of the answer; None for all.
        id: the client's, for its own use; stands in messages of errors.
        parameters: see `parameters.py`.
        key: decides about a canary.
        deadline: of the transport, `time.monotonic()` seconds.
        source: who asks, in the ledger.
        trace: the `traceparent` of the caller.
    """

    model: str
    version: int | None
    tensors: Tensors
    outputs: tuple[Wanted, ...] | None = None
    id: str = ""
    parameters: Parameters = NO_PARAMETERS
    key: str = ""
    deadline: float | None = None
    source: str = ""
    trace: str = ""


class Given(NamedTuple):
    """One output of an answer.

    Attributes:
        array: BYTES as an object array of `bytes`.
        wanted: how the client asked for it; None if it asked for all.
        written: bytes that were laid down in `wanted.region`; None if the array travels with the answer.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    array: Array
    wanted: Wanted | None = None
    written: int | None = None


class Answered(NamedTuple):
    """One answer.

    Attributes:
        model: its bare name.
        version: as text, as all wires have it.
        id: names the prediction; not the client's id of the request.
        outputs: in the order asked for.
    """

    model: str
    version: str
    id: str
    outputs: list[Given]
    parameters: Mapping[str, Value] = NO_PARAMETERS


class Inferences:
    """Answers requests of tensors. Event loop only."""

    def __init__(self, services: Services) -> None:
        self._router = services.router
        self._regions = services.regions
        self._services = services

    def tensor(self, name: str, datatype: DataType, shape: tuple[int, ...], region: Region) -> Array:
        """An input that lies in shared memory, as a read-only copy.

        Raises:
            Forbidden, InvalidInput: see `Regions.read`; or its bytes are not what datatype and shape say.
        """
        return tensor_bytes.read(name, datatype, shape, self._regions.read(region))

    async def infer(self, asked: Asked) -> Answered:
        """Answer one request.

        Raises:
            NotFound: the model or the version is not open.
            Unavailable: it is not loaded yet.
            Unsupported: a decoupled model, see `stream`.
            InvalidInput: the tensors do not fit the model, an output is unknown, or a parameter is wrong.
            Overloaded, DeadlineExceeded, EngineError: see `Router.infer`.
        """
        servable = self._checked(asked)
        options = options_of(asked.parameters) if asked.parameters else NO_OPTIONS
        deadline = deadline_of(asked.parameters, asked.deadline) if asked.parameters else asked.deadline
        tracer = self._services.tracer
        ask = self._router.infer if tracer is None else tracer.around(self._router.infer, asked.model, asked.trace, asked.id)
        try:
            answer = await ask(
                asked.model,
                asked.tensors,
                version=asked.version,
                key=asked.key,
                deadline=deadline,
                source=asked.source,
                options=options,
            )
        except (InvalidInput, NotFound) as error:
            raise explained(error, self._router, asked.model, asked.version, tensors=asked.tensors, id=asked.id) from error
        return self._answered(answer, asked, servable)

    async def stream(self, asked: Asked) -> AsyncGenerator[Answered, None]:
        """Every answer of a decoupled model; exactly one of any other. Errors as `infer`, from the first step on.

        Answers of a decoupled model carry `triton_final_response`: false, and where the request asks for it by
        `triton_enable_empty_final_response`, one answer without outputs follows that says true. So does a model's only one.
        """
        servable = self._checked(asked)
        says_final = flag(asked.parameters, EMPTY_FINAL_RESPONSE)
        decoupled = servable.decoupled
        tracer, ask = self._services.tracer, self._router.stream
        if tracer is not None:
            ask = tracer.around_stream(ask, asked.model, asked.trace, asked.id)
        try:
            answers = ask(
                asked.model,
                asked.tensors,
                version=asked.version,
                key=asked.key,
                deadline=deadline_of(asked.parameters, asked.deadline),
                source=asked.source,
                options=options_of(asked.parameters),
            )
            async with aclosing(answers):  # a client that leaves early sets the model free
                async for answer in answers:
                    said: dict[str, Value] = {FINAL_RESPONSE: not decoupled} if decoupled or says_final else {}
                    yield self._answered(answer, asked, servable)._replace(parameters=said)
        except (InvalidInput, NotFound) as error:
            raise explained(error, self._router, asked.model, asked.version, tensors=asked.tensors, id=asked.id) from error
        if decoupled and says_final:
            yield Answered(servable.name, str(servable.version), "", [], {FINAL_RESPONSE: True})

    def _checked(self, asked: Asked) -> Servable:
        """What will answer, once it is known that it can give the outputs that were asked for."""
        try:
            servable = self._router.predictor(asked.model, version=asked.version)
        except NotFound as error:
            raise explained(error, self._router, asked.model, asked.version, tensors=asked.tensors, id=asked.id) from error
        if asked.outputs is not None:
            known = [spec.name for spec in servable.signature.outputs]
            for wanted in asked.outputs:
                if wanted.name not in known:
                    text = f"unexpected inference output '{wanted.name}' for model '{asked.model}'"
                    raise InvalidInput(text, hint=f"known: {', '.join(known)}")
                if wanted.region is not None:
                    self._regions.check(wanted.region)
        return servable

    def _answered(self, answer: Inference, asked: Asked, servable: Servable) -> Answered:
        if asked.outputs is None:
            outputs = [Given(name, _datatype(array), array.shape, array) for name, array in answer.outputs.items()]
        else:
            given = answer.outputs  # without those of an ensemble's steps that were skipped
            outputs = [self._given(wanted, given[wanted.name], servable) for wanted in asked.outputs if wanted.name in given]
        return Answered(answer.model, str(answer.version), answer.id, outputs)

    def _given(self, wanted: Wanted, array: Array, servable: Servable) -> Given:
        if wanted.classification:
            spec = servable.signature.output(wanted.name)
            labels = servable.bundle.labels
            array = classify(wanted.name, array, wanted.classification, batched=spec.batched, labels=labels)
        written: int | None = None
        if wanted.region is not None:
            data = tensor_bytes.write(array)
            self._regions.write(wanted.region, data)
            written = len(data)
        return Given(wanted.name, _datatype(array), array.shape, array, wanted, written)


def _datatype(array: Array) -> str:
    return tensor_bytes.datatype_name(array)
