"""BF16 tensors through ONNX Runtime: its NumPy interface does not know the type, its own values do."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from onnx import TensorProto

from inferloop.core.datatypes import Array, DataType, Tensors

_BF16 = DataType.BF16.numpy
_TYPE = "tensor(bfloat16)"


def run(session: ort.InferenceSession, outputs: Sequence[str], inputs: Tensors) -> list[Array]:
    """The outputs of a model that has BF16 inputs or outputs, each in memory of its own."""
    values = session.run_with_ort_values(list(outputs), {name: _value(array) for name, array in inputs.items()})
    return [_array(value) for value in values]


def _value(array: Array) -> ort.OrtValue:
    if array.dtype != _BF16:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    bits = np.ascontiguousarray(array).view(np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)


def _array(value: ort.OrtValue) -> Array:
    if value.data_type() != _TYPE:
        array: Array = value.numpy()
        return array
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bytearray(data), _BF16).reshape(value.shape())
