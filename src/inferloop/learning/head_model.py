"""The head inside `model.onnx`: read, replaced, and what is left of the model without it. Needs onnx alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from inferloop.core.bundle import GOLDEN, Bundle
from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidBundle, Unsupported
from inferloop.core.manifest import Head
from inferloop.evaluation.head import LinearHead

_AGREEMENT = 1e-3


def declared_head(bundle: Bundle) -> Head:
    """The head that the manifest names.

    Raises:
        Unsupported: the bundle declares none, or has no classes.
    """
    if bundle.manifest.head is None or len(bundle.labels) < 2:
        raise Unsupported(
            f"model {bundle.name!r} has no head that can be refitted",
            hint="its bundle must declare labels, an embedding output and the head's weight and bias",
        )
    return bundle.manifest.head


def read_head(bundle: Bundle) -> LinearHead:
    """The weights of the declared head, checked against the golden outputs.

    Raises:
        InvalidBundle: `output = embedding @ weight + bias` does not hold for this model.
    """
    head = declared_head(bundle)
    model = _load(bundle)
    weight, bias = (_initializer(model, name, bundle) for name in (head.weight, head.bias))
    if weight.ndim != 2 or bias.shape != (len(bundle.labels),) or weight.shape[1] != len(bundle.labels):
        raise InvalidBundle(
            f"bundle {bundle.path}: the head is {list(weight.shape)} and {list(bias.shape)}, "
            f"it must be [D, {len(bundle.labels)}] and [{len(bundle.labels)}]"
        )
    found = LinearHead(weight.astype(np.float64), bias.astype(np.float64))
    _check_golden(bundle, head, found)
    return found


def with_head(bundle: Bundle, replacement: LinearHead) -> bytes:
    """`model.onnx` with another head; everything else stays as it is, byte for byte."""
    head = declared_head(bundle)
    model = _load(bundle)
    for name, values in ((head.weight, replacement.weight), (head.bias, replacement.bias)):
        old = _tensor(model, name, bundle)
        dtype = numpy_helper.to_array(old).dtype
        old.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values.astype(dtype)), name))
    return bytes(model.SerializeToString(deterministic=True))


def backbone_digest(bundle: Bundle) -> str:
    """`sha256:` of the model without the values of its head: equal means that embeddings can be exchanged."""
    head = declared_head(bundle)
    model = _load(bundle)
    for name in (head.weight, head.bias):
        tensor = _tensor(model, name, bundle)
        dims = list(tensor.dims)
        tensor.Clear()
        tensor.name = name
        tensor.dims.extend(dims)
    return "sha256:" + hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _load(bundle: Bundle) -> onnx.ModelProto:
    try:
        model = onnx.load_model(str(bundle.model_path), load_external_data=False)
    except Exception as error:  # protobuf's errors share no base class with onnx's
        raise InvalidBundle(f"{bundle.model_path} is not an ONNX model: {error}") from error
    return model


def _tensor(model: onnx.ModelProto, name: str, bundle: Bundle) -> onnx.TensorProto:
    tensors: Sequence[onnx.TensorProto] = model.graph.initializer
    for tensor in tensors:
        if tensor.name == name:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise InvalidBundle(f"bundle {bundle.path}: the head's {name!r} lies outside of model.onnx")
            return tensor
    raise InvalidBundle(f"bundle {bundle.path}: model.onnx has no initializer {name!r}")


def _initializer(model: onnx.ModelProto, name: str, bundle: Bundle) -> Array:
    return numpy_helper.to_array(_tensor(model, name, bundle))


def _check_golden(bundle: Bundle, head: Head, found: LinearHead) -> None:
    golden = bundle.arrays(GOLDEN)
    embedding, output = golden.get(f"outputs/{head.embedding}"), golden.get(f"outputs/{head.output}")
    if embedding is None or output is None or embedding.ndim != 2 or embedding.shape[1] != found.weight.shape[0]:
        raise InvalidBundle(f"bundle {bundle.path}: golden.npz does not hold {head.embedding!r} [N, {found.weight.shape[0]}]")
    error = float(np.max(np.abs(found.logits(embedding) - output), initial=0.0))
    if not error <= _AGREEMENT * max(1.0, float(np.max(np.abs(output), initial=0.0))):
        raise InvalidBundle(
            f"bundle {bundle.path}: {head.output!r} is not {head.embedding!r} @ {head.weight!r} + {head.bias!r}, "
            f"off by {error:.3g}"
        )
