"""What an ONNX file says of itself: a Signature for a model that comes without a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferloop.core.datatypes import DataType
from inferloop.core.errors import InvalidBundle, InvalidInput
from inferloop.core.signature import Signature, TensorSpec
from inferloop.prediction.repository.paths import check_relative, real

if TYPE_CHECKING:
    import onnx

_TYPES = {
    1: DataType.FP32, 2: DataType.UINT8, 3: DataType.INT8, 4: DataType.UINT16, 5: DataType.INT16, 6: DataType.INT32,
    7: DataType.INT64, 8: DataType.BYTES, 9: DataType.BOOL, 10: DataType.FP16, 11: DataType.FP64, 12: DataType.UINT32,
    13: DataType.UINT64, 16: DataType.BF16,
}  # fmt: skip
_EXTERNAL = 1
_MOST_NESTED = 16


class WholeSignature(Signature):
    """A Signature without a batch axis, even where the first axis is free: every request is run by itself."""

    @cached_property
    def batched(self) -> bool:
        """False: axis 0 belongs to the model."""
        return False


def read_graph(path: Path, *, root: Path) -> Signature:
    """The inputs and outputs of a model file, every axis of them; what is fed by an initializer is no input.

    Args:
        path: the model.
        root: the directory that files of weights beside it must not leave.

    Raises:
        InvalidBundle: no ONNX, a type that the protocol does not have, or weights in a file elsewhere.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError, RuntimeError) as error:
        raise InvalidBundle(f"{path} is no ONNX model: {str(error)[:200]}") from error
    graph = model.graph
    if not graph.output:
        raise InvalidBundle(f"{path} is no ONNX model: it has no outputs")
    for function in model.functions:
        _check_weights(_of_nodes(function.node, 0), path, root)
    _check_weights(_tensors(graph, 0), path, root)
    given = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_spec(value, path) for value in graph.input if value.name not in given)
    return Signature(inputs, tuple(_spec(value, path) for value in graph.output))


def _spec(value: onnx.ValueInfoProto, path: Path) -> TensorSpec:
    tensor = value.type.tensor_type
    datatype = _TYPES.get(tensor.elem_type)
    if datatype is None or not tensor.HasField("shape"):
        raise InvalidBundle(f"{path}: {value.name!r} has a type or shape that the protocol cannot carry")
    return TensorSpec(value.name, datatype, tuple(_size(axis) for axis in tensor.shape.dim))


def _size(axis: Any) -> int | None:
    return axis.dim_value if axis.HasField("dim_value") and axis.dim_value >= 0 else None


def _check_weights(tensors: Iterable[onnx.TensorProto], path: Path, root: Path) -> None:
    for tensor in tensors:
        if tensor.data_location != _EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        try:
            check_relative(location)
            found = real(root, path.parent / location)
        except InvalidInput as error:
            raise InvalidBundle(f"{path}: the weights {tensor.name!r} are at {location!r}, outside of its directory") from error
        if not found.is_file():
            raise InvalidBundle(f"{path}: the weights {tensor.name!r} are in {location!r}, which is not there")


def _tensors(graph: onnx.GraphProto, depth: int) -> Iterator[onnx.TensorProto]:
    """Every tensor that is stored with the model, those of inner graphs too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node, depth)


def _of_nodes(nodes: Iterable[onnx.NodeProto], depth: int) -> Iterator[onnx.TensorProto]:
    if depth > _MOST_NESTED:
        raise InvalidBundle("the model's graphs are nested too deep")
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _tensors(inner, depth + 1)
