"""The ONNX operators of the numpy engine (opset 17 to 21): one small function each.

A function gets the node's attributes and its inputs in order (`None` for one left out) and returns the output array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from inferloop.core.datatypes import Array

Attributes = Mapping[str, Any]
Operator = Callable[..., Any]


def _plain(function: Callable[..., Any]) -> Operator:
    """An operator without attributes: a function of its inputs."""
    return lambda attributes, *inputs: function(*inputs)  # noqa: ARG005  # the table's calling form


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[x.dtype])(x) if x.size else x


def _sigmoid(x: Array) -> Array:
    positive = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + positive), positive / (1 + positive)).astype(x.dtype, copy=False)


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":  # ONNX truncates toward zero
        return np.trunc(np.true_divide(a, b)).astype(a.dtype)
    return np.divide(a, b)


def _gelu(attributes: Attributes, x: Array) -> Array:
    if attributes.get("approximate", b"none") == b"tanh":
        inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inner)), dtype=x.dtype)
    return np.asarray(0.5 * x * (1 + _erf(x / np.sqrt(2).astype(x.dtype))), dtype=x.dtype)


def _gemm(attributes: Attributes, a: Array, b: Array, c: Array | None = None) -> Array:
    left = a.T if attributes.get("transA", 0) else a
    right = b.T if attributes.get("transB", 0) else b
    product = attributes.get("alpha", 1.0) * (left @ right)
    return np.asarray(product if c is None else product + attributes.get("beta", 1.0) * c, dtype=a.dtype)


def _softmax(attributes: Attributes, x: Array) -> Array:
    axis = attributes.get("axis", -1)
    raised = np.exp(x - x.max(axis=axis, keepdims=True))
    scores: Array = raised / raised.sum(axis=axis, keepdims=True)
    return scores


def _log_softmax(attributes: Attributes, x: Array) -> Array:
    axis = attributes.get("axis", -1)
    shifted = x - x.max(axis=axis, keepdims=True)
    logs: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return logs


def _clip(_: Attributes, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    return x if low is None and high is None else np.clip(x, low, high)


def _leaky_relu(attributes: Attributes, x: Array) -> Array:
    return np.where(x >= 0, x, x * x.dtype.type(attributes.get("alpha", 0.01)))


def _cast(attributes: Attributes, x: Array) -> Array:
    return x.astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _constant(attributes: Attributes) -> Array:
    if "value" not in attributes:
        raise ValueError(f"only tensor constants are read, not {', '.join(attributes)}")
    return numpy_helper.to_array(attributes["value"])


def _flatten(attributes: Attributes, x: Array) -> Array:
    axis = attributes.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _reshape(attributes: Attributes, x: Array, shape: Array) -> Array:
    keep_zero = attributes.get("allowzero", 0)
    sizes = [x.shape[axis] if size == 0 and not keep_zero else int(size) for axis, size in enumerate(shape)]
    return x.reshape(sizes)


def _transpose(attributes: Attributes, x: Array) -> Array:
    return x.transpose(attributes.get("perm"))


def _unsqueeze(_: Attributes, x: Array, axes: Array) -> Array:
    return np.expand_dims(x, tuple(int(axis) for axis in axes))


def _squeeze(_: Attributes, x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, None if axes is None else tuple(int(axis) for axis in axes))


def _concat(attributes: Attributes, *arrays: Array) -> Array:
    return np.concatenate(arrays, axis=attributes["axis"])


def _gather(attributes: Attributes, x: Array, indices: Array) -> Array:
    return np.take(x, indices, axis=attributes.get("axis", 0))


def _shape(attributes: Attributes, x: Array) -> Array:
    return np.array(x.shape[attributes.get("start", 0) : attributes.get("end")], dtype=np.int64)


def _layer_norm(attributes: Attributes, x: Array, scale: Array, bias: Array | None = None) -> Array:
    axes = tuple(range(attributes.get("axis", -1) % x.ndim, x.ndim))
    centered = x - x.mean(axis=axes, keepdims=True)
    variance = np.square(centered).mean(axis=axes, keepdims=True)
    normal = centered / np.sqrt(variance + attributes.get("epsilon", 1e-5)) * scale
    return np.asarray(normal if bias is None else normal + bias, dtype=x.dtype)


def _reduce(function: Callable[..., Any]) -> Operator:
    """Axes are an attribute up to opset 17 (ReduceSum: an input since 13) and an input since 18."""

    def operator(attributes: Attributes, x: Array, axes: Array | None = None) -> Array:
        given = attributes.get("axes") if axes is None else axes.tolist()
        if not given and attributes.get("noop_with_empty_axes", 0):
            return x
        over = tuple(given) if given else None
        return np.asarray(function(x, axis=over, keepdims=bool(attributes.get("keepdims", 1))), dtype=x.dtype)

    return operator


OPERATORS: dict[str, Operator] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "Div": _plain(_divide),
    "Equal": _plain(np.equal),
    "Erf": _plain(_erf),
    "Exp": _plain(np.exp),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Greater": _plain(np.greater),
    "Identity": _plain(lambda x: x),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "Less": _plain(np.less),
    "Log": _plain(np.log),
    "LogSoftmax": _log_softmax,
    "MatMul": _plain(np.matmul),
    "Max": _plain(lambda *arrays: np.maximum.reduce(np.broadcast_arrays(*arrays))),
    "Min": _plain(lambda *arrays: np.minimum.reduce(np.broadcast_arrays(*arrays))),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Pow": _plain(lambda x, y: np.power(x, y).astype(x.dtype)),
    "Reciprocal": _plain(np.reciprocal),
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceSum": _reduce(np.sum),
    "Relu": _plain(lambda x: np.maximum(x, 0)),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _plain(_sigmoid),
    "Softmax": _softmax,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(np.subtract),
    "Tanh": _plain(np.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
}
