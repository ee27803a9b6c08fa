"""Each operator of the numpy engine against ONNX's reference evaluator, and what the engine refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from inferloop.core.datatypes import Array
from inferloop.core.errors import Unsupported
from inferloop.core.manifest import Manifest
from inferloop.core.target import Target
from inferloop.engines.numpy import NumpyEngine
from inferloop.engines.numpy_operators import OPERATORS
from support import bundles

_RANDOM = np.random.default_rng(7)
X = _RANDOM.normal(size=(2, 3, 4)).astype(np.float32)
Y = _RANDOM.normal(size=(2, 3, 4)).astype(np.float32)
M, N = X[0], Y[0].T.copy()
FLAGS = X > 0


def _ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


CASES: list[tuple[str, list[Array], dict[str, Any]]] = [
    *[(op, [X], {}) for op in ("Abs", "Erf", "Exp", "Identity", "Neg", "Relu", "Shape", "Sigmoid", "Tanh", "Reciprocal")],
    *[(op, [np.abs(X) + 1], {}) for op in ("Log", "Sqrt")],
    *[(op, [X, Y], {}) for op in ("Add", "Div", "Greater", "Less", "Equal", "Mul", "Sub", "Max", "Min")],
    *[(op, [FLAGS, ~FLAGS], {}) for op in ("And", "Or")],
    *[(op, [X], {"axis": axis}) for op in ("Softmax", "LogSoftmax") for axis in (-1, 1)],
    *[(op, [X], {"axes": [1], "keepdims": keep}) for op in ("ReduceMean", "ReduceMax", "ReduceMin") for keep in (0, 1)],
    ("ReduceSum", [X, _ints(-1, 0)], {"keepdims": 0}),
    ("ReduceSum", [X], {}),
    ("ReduceSum", [X], {"noop_with_empty_axes": 1}),
    ("Not", [FLAGS], {}),
    ("Div", [_ints(7, -7, 9), _ints(2, 2, -4)], {}),
    ("Pow", [np.abs(X), np.float32(1.5) * np.ones(1, np.float32)], {}),
    ("Cast", [X], {"to": TensorProto.INT64}),
    ("Clip", [X, np.float32(-0.5), np.float32(0.5)], {}),
    ("Clip", [X], {}),
    ("LeakyRelu", [X], {"alpha": 0.2}),
    ("Gelu", [X], {}),
    ("Gelu", [X], {"approximate": "tanh"}),
    ("Gemm", [M, N, np.ones(3, np.float32)], {}),
    ("Gemm", [M.T.copy(), N.T.copy()], {"transA": 1, "transB": 1, "alpha": 0.5}),
    ("MatMul", [X, Y.swapaxes(1, 2).copy()], {}),
    ("Flatten", [X], {"axis": 2}),
    ("Flatten", [X], {"axis": -1}),
    ("Reshape", [X, _ints(0, -1)], {}),
    ("Transpose", [X], {"perm": [2, 0, 1]}),
    ("Transpose", [X], {}),
    ("Unsqueeze", [X, _ints(0, 3)], {}),
    ("Squeeze", [X[:, :1], _ints(1)], {}),
    ("Squeeze", [X[:, :1]], {}),
    ("Concat", [X, Y], {"axis": 1}),
    ("Gather", [X, np.array([[0, 2], [1, -1]], np.int64)], {"axis": 1}),
    ("Shape", [X], {"start": 1}),
    ("Constant", [], {"value": numpy_helper.from_array(X)}),
    ("LayerNormalization", [X, np.full(4, 2, np.float32), np.ones(4, np.float32)], {"epsilon": 1e-6}),
    ("LayerNormalization", [X, np.full(4, 2, np.float32)], {}),
    ("Where", [FLAGS, X, Y], {}),
]


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES, ids=[f"{index}-{case[0]}" for index, case in enumerate(CASES)])
def test_an_operator_computes_what_the_reference_computes(op: str, inputs: list[Array], attributes: dict[str, Any]) -> None:
    expected = _reference(op, inputs, attributes)
    node = helper.make_node(op, [], [], **attributes)
    read = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    got = OPERATORS[op](read, *inputs)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


def test_every_operator_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(OPERATORS)


def test_an_operator_that_is_not_offered_is_refused_with_its_name_and_its_node(tmp_path: Path) -> None:
    plain = bundles.linear(tmp_path / "plain")
    nodes = [
        helper.make_node("Gemm", ["x", "weight", "bias"], ["raw"]),
        helper.make_node("Elu", ["raw"], ["scores"], name="the last one"),
    ]
    weights = {"weight": np.ones((4, 3), np.float32), "bias": np.ones(3, np.float32)}
    bundle = bundles.write(
        tmp_path / "elu", Manifest("elu", plain.signature), nodes=nodes, weights=weights, rows={"x": np.ones((2, 4), np.float32)}
    )
    with pytest.raises(Unsupported, match=r"Elu \(node 'the last one'\)"):
        NumpyEngine().load(bundle, Target("numpy"))


def _reference(op: str, inputs: list[Array], attributes: dict[str, Any]) -> Array:
    names = [f"i{index}" for index in range(len(inputs))]
    node = helper.make_node(op, names, ["out"], **attributes)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype), np.asarray(array).shape)
        for name, array in zip(names, inputs, strict=True)
    ]
    graph = helper.make_graph([node], "one", values, [onnx.ValueInfoProto(name="out")])
    opset = 20 if op == "Gelu" else 17
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return np.asarray(ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))[0])
