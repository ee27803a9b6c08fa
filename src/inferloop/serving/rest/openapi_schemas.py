"""What requests and answers hold, in JSON Schema, by the name of the operation."""

from __future__ import annotations

from typing import Any

from inferloop.core.datatypes import DataType

_TEXT = {"type": "string"}
_DATATYPES = {"type": "string", "enum": [datatype.value for datatype in DataType]}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": -1}}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "integer", "number", "boolean", "null"]}}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _list(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


SCHEMAS: dict[str, Any] = {
    "Error": {**_object(["error"], error=_TEXT), "additionalProperties": False},
    "Tensor": _object(["name", "datatype", "shape"], name=_TEXT, datatype=_DATATYPES, shape=_SHAPE),
    "InputTensor": _object(
        ["name", "datatype", "shape"],
        name=_TEXT,
        datatype=_DATATYPES,
        shape={"type": "array", "items": {"type": "integer", "minimum": 0}},
        data={"type": "array"},
        parameters=_PARAMETERS,
    ),
    "RequestedOutput": _object(["name"], name=_TEXT, parameters=_PARAMETERS),
    "OutputTensor": _object(
        ["name", "datatype", "shape"],
        name=_TEXT,
        datatype=_DATATYPES,
        shape=_SHAPE,
        data={"type": "array"},
        parameters=_PARAMETERS,
    ),
    "InferRequest": _object(
        ["inputs"], id=_TEXT, inputs=_list("InputTensor"), outputs=_list("RequestedOutput"), parameters=_PARAMETERS
    ),
    "InferResponse": _object(
        ["model_name", "model_version", "outputs"],
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        outputs=_list("OutputTensor"),
        parameters=_PARAMETERS,
    ),
    "GenerateRequest": {**_object([], id=_TEXT, parameters=_PARAMETERS), "additionalProperties": True},
    "GenerateResponse": _object(["model_name", "model_version"], model_name=_TEXT, model_version=_TEXT, id=_TEXT),
    "Prediction": _object(
        ["model_name", "model_version", "id"],
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        label=_TEXT,
        score={"type": "number"},
        scores={"type": "object", "additionalProperties": {"type": "number"}},
        outputs={"type": "object"},
    ),
    "Feedback": {
        **_object(["prediction_id", "label"], prediction_id=_TEXT, label=_TEXT, by=_TEXT),
        "additionalProperties": False,
    },
    "Refused": _object(["index", "prediction_id", "error"], index={"type": "integer"}, prediction_id=_TEXT, error=_TEXT),
    "Server": _object(["name", "version", "extensions"], name=_TEXT, version=_TEXT, extensions={"type": "array", "items": _TEXT}),
    "Model": _object(
        ["name", "versions", "platform", "inputs", "outputs"],
        name=_TEXT,
        versions={"type": "array", "items": _TEXT},
        platform=_TEXT,
        inputs=_list("Tensor"),
        outputs=_list("Tensor"),
    ),
    "ModelState": _object(
        ["name", "version", "state"], name=_TEXT, version=_TEXT, ref=_TEXT, role=_TEXT, state=_TEXT, reason=_TEXT
    ),
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _body(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"required": required, "content": _json(schema)}


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ANYTHING: dict[str, Any] = {"type": "object"}

SUMMARIES: dict[str, str] = {
    "page": "A page for browsers (`Accept: text/html`); 404 for others",
    "openapi": "This document",
    "server": "Name, version and extensions of the server",
    "live": "Whether the process answers",
    "ready": "Whether all models answer",
    "models": "Every open model",
    "metrics": "Metrics, in the text form of Prometheus",
    "model": "The tensors that a model takes and gives",
    "model_ready": "Whether a model answers",
    "infer": "Predict: tensors in JSON or binary, or one image, recording, text or JSON sample",
    "generate": "Predict: an object of inputs by name in, of outputs by name out",
    "generate_stream": "The same as Server-Sent Events, one for each answer of the model",
    "feedback": "What was right for a prediction of this model",
    "feedback_many": "What was right, for many predictions",
    "repository_index": "The models of the repository",
    "repository_load": "Load a model, or its newest version",
    "repository_unload": "Unload a model",
    "config": "The configuration of a model, as Triton writes it",
    "stats": "Counts and times of one model, or of all",
    "trace": "The trace settings",
    "trace_of_model": "The trace settings of a model",
    "logging": "The log settings",
    "shared_memory_status": "The registered regions of system shared memory",
    "shared_memory_register": "Register a region of system shared memory",
    "shared_memory_unregister": "Forget a region, or all",
    "cuda_status": "The registered regions of device memory: none",
    "cuda_register": "Refused: device memory is not shared",
    "cuda_unregister": "Nothing to forget",
}

BODIES: dict[str, Any] = {
    "infer": {
        "required": False,
        "content": {
            **_json({"anyOf": [_ref("InferRequest"), _ANYTHING]}),
            "application/octet-stream": _BINARY,
            "text/plain": {"schema": _TEXT},
            "image/png": _BINARY,
            "image/jpeg": _BINARY,
            "audio/wav": _BINARY,
        },
    },
    "generate": _body(_ref("GenerateRequest")),
    "generate_stream": _body(_ref("GenerateRequest")),
    "feedback": _body(_ref("Feedback")),
    "feedback_many": _body({**_list("Feedback"), "maxItems": 10_000}),
    "repository_index": _body(_object([], ready={"type": "boolean"}), required=False),
    "repository_load": _body(_object([], parameters={"type": "object"}), required=False),
    "repository_unload": _body(_object([], parameters={"type": "object"}), required=False),
    "trace": _body(_ANYTHING),
    "trace_of_model": _body(_ANYTHING),
    "logging": _body(_ANYTHING),
    "shared_memory_register": _body(
        _object(
            ["key", "byte_size"], key=_TEXT, offset={"type": "integer", "minimum": 0}, byte_size={"type": "integer", "minimum": 0}
        )
    ),
}

ANSWERS: dict[str, Any] = {
    "page": {"text/html": {"schema": _TEXT}},
    "openapi": _json(_ANYTHING),
    "server": _json(_ref("Server")),
    "live": _json(_object(["live"], live={"type": "boolean"})),
    "ready": _json(_object(["ready"], ready={"type": "boolean"})),
    "models": _json(_object(["models"], models=_list("ModelState"))),
    "metrics": {"text/plain": {"schema": _TEXT}},
    "model": _json(_ref("Model")),
    "model_ready": _json(_object(["name", "ready"], name=_TEXT, ready={"type": "boolean"})),
    "infer": {**_json({"anyOf": [_ref("InferResponse"), _ref("Prediction")]}), "application/octet-stream": _BINARY},
    "generate": _json(_ref("GenerateResponse")),
    "generate_stream": {"text/event-stream": {"schema": _TEXT}},
    "feedback": _json(_object(["prediction_id", "stored"], prediction_id=_TEXT, stored={"type": "integer"})),
    "feedback_many": _json(_object(["stored", "refused"], stored={"type": "integer"}, refused=_list("Refused"))),
    "repository_index": _json({"type": "array", "items": _ANYTHING}),
    "config": _json(_ANYTHING),
    "stats": _json(_object(["model_stats"], model_stats={"type": "array", "items": _ANYTHING})),
    "trace": _json(_ANYTHING),
    "trace_of_model": _json(_ANYTHING),
    "logging": _json(_ANYTHING),
    "shared_memory_status": _json({"type": "array", "items": _ANYTHING}),
    "cuda_status": _json({"type": "array", "items": _ANYTHING}),
}
