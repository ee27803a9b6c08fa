"""A reference engine: runs a small, documented subset of ONNX in plain NumPy.

Slow, simple and readable: what another engine answers can be held against it. The operators stand in
`numpy_operators.py`; a model with another one is refused when it is loaded, with the operator's and the node's name.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import EngineError, Unsupported
from inferloop.core.protocols import Engine, Session
from inferloop.core.target import Precision, Target
from inferloop.engines.numpy_operators import OPERATORS, Attributes


class NumpyEngine(Engine):
    """Computes in the calling thread; `target.threads` is the business of NumPy's BLAS."""

    def load(self, bundle: Bundle, target: Target) -> Session:
        """See `Engine.load`."""
        if target.device != "cpu" or target.precision is not Precision.F32:
            raise Unsupported(f"the numpy engine has no {target.device}:{target.precision}", hint="known: cpu:f32")
        return NumpySession(bundle)

    def devices(self) -> tuple[str, ...]:
        """See `Engine.devices`."""
        return ("cpu",)


class NumpySession(Session):
    """Walks the graph node by node. Keeps no state between runs."""

    def __init__(self, bundle: Bundle) -> None:
        self.signature = bundle.signature
        graph = _read(bundle)
        self._nodes = [(node, _attributes(node)) for node in graph.node]
        self._constants: Tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._check(graph, bundle)

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `Session.run`."""
        values: dict[str, Array | None] = {"": None, **self._constants, **inputs}
        for node, attributes in self._nodes:
            try:
                with np.errstate(all="ignore"):  # as ONNX: infinities and NaN are answers
                    values[node.output[0]] = OPERATORS[node.op_type](attributes, *[values[name] for name in node.input])
            except Exception as error:  # NumPy raises whatever the shapes and values provoke
                raise EngineError(f"numpy engine: {node.op_type} node {node.name!r}: {error}") from error
        return {spec.name: np.array(values[spec.name]) for spec in self.signature.outputs}  # copies: they are the caller's

    def close(self) -> None:
        """See `Session.close`."""

    def _check(self, graph: onnx.GraphProto, bundle: Bundle) -> None:
        for node in graph.node:
            if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
                raise Unsupported(
                    f"the numpy engine has no operator {node.op_type} (node {node.name!r})", hint="use the onnxruntime engine"
                )
        known = {value.name for value in graph.output}
        for spec in self.signature.outputs:
            if spec.name not in known:
                raise EngineError(f"{bundle.model_path} has no output {spec.name!r}, its bundle declares it")


def _read(bundle: Bundle) -> onnx.GraphProto:
    try:
        return onnx.load(bundle.model_path, load_external_data=False).graph
    except Exception as error:  # protobuf's DecodeError and whatever a damaged file provokes
        raise EngineError(f"numpy engine cannot read {bundle.model_path}: {error}") from error


def _attributes(node: onnx.NodeProto) -> Attributes:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
