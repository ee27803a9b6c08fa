"""What tests send with tritonclient, and bundles that give back what they get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from inferloop.core.bundle import MODEL, Bundle
from inferloop.core.datatypes import Array, DataType
from inferloop.core.manifest import Manifest
from inferloop.core.signature import Signature, TensorSpec

X = np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)
_ELEMENT = {
    DataType.FP32: onnx.TensorProto.FLOAT,
    DataType.FP64: onnx.TensorProto.DOUBLE,
    DataType.FP16: onnx.TensorProto.FLOAT16,
    DataType.BYTES: onnx.TensorProto.STRING,
}


def echo(path: Path, datatype: DataType = DataType.FP32, *, name: str = "") -> Bundle:
    """`x` of any datatype and width, given back as `y`."""
    element = _ELEMENT.get(datatype) or getattr(onnx.TensorProto, datatype.value)
    taken, given = (onnx.helper.make_tensor_value_info(side, element, ["N", "M"]) for side in ("x", "y"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "echo", [taken], [given])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    signature = Signature((TensorSpec("x", datatype, (None, None)),), (TensorSpec("y", datatype, (None, None)),))
    manifest = Manifest(name=name or f"echo_{datatype.value.lower()}", signature=signature)
    return Bundle.write(path, manifest, {MODEL: model.SerializeToString()})


def tensor(array: Array, *, name: str = "x", datatype: str = "") -> Any:
    """An input for tritonclient."""
    import tritonclient.grpc as triton

    made = triton.InferInput(name, list(array.shape), datatype or DataType.of(array).value)
    made.set_data_from_numpy(array)
    return made
