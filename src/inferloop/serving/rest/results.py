"""Answers as they leave: outputs in JSON, as bytes after it, or laid down in shared memory; and the labels of a Sample."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

from inferloop.core.datatypes import Array
from inferloop.data.codecs import tensor_bytes
from inferloop.net.http import Headers, Response
from inferloop.prediction.prediction import Inference, Prediction
from inferloop.serving.operations.inference import Answered, Given
from inferloop.serving.operations.shared_memory import Region
from inferloop.serving.rest import messages, tensor_json
from inferloop.serving.rest.messages import InferResponse, OutputTensor

PREDICTION_ID = "Inferloop-Prediction-Id"
LENGTH = "Inference-Header-Content-Length"
_LARGE_ELEMENTS = 20_000


class Output(NamedTuple):
    """One output as it leaves: in JSON, as bytes after it, or laid down in a region already."""

    name: str
    datatype: str
    array: Array
    binary: bool
    region: Region | None = None


class Result(NamedTuple):
    """One answer to a request of tensors.

    Attributes:
        id: names the prediction.
        version: as text, as the protocol has it.
        request_id: the client's.
    """

    id: str
    model: str
    version: str
    outputs: list[Output]
    request_id: str


def plain_result(answer: Inference, asked: messages.AnyRequest) -> Result:
    """All outputs, in JSON or all binary."""
    binary = _wants_binary(asked)
    outputs = [Output(name, tensor_bytes.datatype_name(array), array, binary) for name, array in answer.outputs.items()]
    return Result(answer.id, answer.model, str(answer.version), outputs, asked.id)


def full_result(answer: Answered, asked: messages.AnyRequest) -> Result:
    """The outputs that were asked for, each as it was asked for."""
    binary = _wants_binary(asked)
    outputs = [_output(given, binary=binary) for given in answer.outputs]
    return Result(answer.id, answer.model, answer.version, outputs, asked.id)


def is_large(result: Result) -> bool:
    """Whether there is so much JSON to write that a thread should."""
    elements = 0
    for output in result.outputs:
        if not output.binary:
            elements += output.array.size
    return elements > _LARGE_ELEMENTS


def respond(result: Result) -> Response:
    """The answer as it leaves."""
    head, blobs = _encoded(result)
    if not blobs:
        return Response(200, head, id_header(result.id))
    headers = ((PREDICTION_ID, result.id), (LENGTH, str(len(head))))
    return Response(200, b"".join((head, *blobs)), headers, "application/octet-stream")


async def respond_from_thread(result: Result) -> Response:
    """The same, off the event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, respond, result)


def _wants_binary(asked: messages.AnyRequest) -> bool:
    return bool(asked.parameters and asked.parameters.get("binary_data_output"))


def _output(given: Given, *, binary: bool) -> Output:
    wanted = given.wanted
    if wanted is None:
        return Output(given.name, given.datatype, given.array, binary)
    chosen = binary if wanted.binary is None else wanted.binary
    return Output(given.name, given.datatype, given.array, chosen, wanted.region if given.written is not None else None)


def _encoded(result: Result) -> tuple[bytes, list[bytes]]:
    """The JSON, and the bytes of each binary output in their order."""
    tensors: list[OutputTensor] = []
    blobs: list[bytes] = []
    for name, datatype, array, binary, region in result.outputs:
        if region is not None:
            place: dict[str, str | int] = {"shared_memory_region": region.name, "shared_memory_byte_size": region.byte_size}
            place |= {"shared_memory_offset": region.offset} if region.offset else {}
            tensors.append(OutputTensor(name, datatype, array.shape, place))
        elif binary:
            blobs.append(tensor_bytes.write(array))
            tensors.append(OutputTensor(name, datatype, array.shape, {"binary_data_size": len(blobs[-1])}))
        else:
            tensors.append(OutputTensor(name, datatype, array.shape, None, tensor_json.write(array)))
    return messages.encode(InferResponse(result.model, result.version, tensors, result.request_id)), blobs


def prediction_json(answer: Prediction) -> bytes:
    """The answer to a Sample: its label with all scores, or the outputs where the model has no labels."""
    content: dict[str, Any] = {"model_name": answer.model, "model_version": str(answer.version), "id": answer.id}
    if answer.label:
        content |= {"label": answer.label, "score": answer.score, "scores": answer.scores}
    else:
        content["outputs"] = {name: tensor_json.write(array) for name, array in answer.outputs.items()}
    return msgspec.json.encode(content)


def id_header(prediction_id: str) -> Headers:
    """The header that names a prediction."""
    return ((PREDICTION_ID, prediction_id),)
