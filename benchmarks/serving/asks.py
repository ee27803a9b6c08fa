"""The same row as each server wants to hear it, and how its answer is read."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from inferloop.core.datatypes import Array
from serving.load import Ask

_LENGTH = "Inference-Header-Content-Length"
_JSON = {"Content-Type": "application/json"}


def protocol_json(model: str, x: Array, y: Array) -> Ask:
    """The Open Inference Protocol v2 in JSON."""
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    return Ask(f"/v2/models/{model}/infer", body, lambda _, got: _near(json.loads(got)["outputs"][0]["data"], y), _JSON)


def protocol_binary(model: str, x: Array, y: Array) -> Ask:
    """The same with binary tensors both ways."""
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()

    def check(headers: Mapping[str, str], got: bytes) -> bool:
        return _near(np.frombuffer(got[int(headers[_LENGTH.lower()]) :], np.float32), y)

    return Ask(f"/v2/models/{model}/infer", head + x.tobytes(), check, {_LENGTH: str(len(head))})


def rows(path: str, x: Array, y: Array, *, key: str = "x") -> Ask:
    """`{"x": [[...]]}`, for servers that have a form of their own; the answer holds the rows under some key, or is them."""
    body = json.dumps({key: x.tolist()}, separators=(",", ":")).encode()

    def check(_: Mapping[str, str], got: bytes) -> bool:
        content = json.loads(got)
        return _near(next(iter(content.values())) if isinstance(content, dict) else content, y)

    return Ask(path, body, check, _JSON)


def _near(got: object, want: Array) -> bool:
    return np.allclose(np.asarray(got, np.float32).ravel(), want.ravel(), rtol=1e-4, atol=1e-6)
