"""The element types of tensors: the datatypes of the Open Inference Protocol v2 and their NumPy forms."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferloop.core.errors import InvalidInput

Array = NDArray[Any]
Tensors = dict[str, Array]


class DataType(StrEnum):
    """An element type by its name on the wire, e.g. `FP32`. BYTES is an object array of `bytes`."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BF16 = "BF16"
    BYTES = "BYTES"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype; BF16 comes from `ml_dtypes`, which onnx depends on."""
        if self is DataType.BF16:
            import ml_dtypes

            bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
            return bfloat16
        return _NUMPY[self]

    @property
    def size_bytes(self) -> int:
        """Bytes of one element; 0 for BYTES, whose elements carry their own length."""
        return 0 if self is DataType.BYTES else self.numpy.itemsize

    @classmethod
    def of(cls, array: Array) -> DataType:
        """The datatype of an array.

        Raises:
            InvalidInput: the protocol has no such type (complex, datetime, structured).
        """
        if array.dtype.kind in "OSU":
            return cls.BYTES
        for datatype, dtype in _NUMPY.items():
            if dtype == array.dtype:
                return datatype
        if array.dtype.name == "bfloat16":
            return cls.BF16
        raise InvalidInput(f"arrays of {array.dtype} have no datatype in the protocol", hint=f"known: {', '.join(cls)}")


_NUMPY: dict[DataType, np.dtype[Any]] = {
    DataType.BOOL: np.dtype("bool"),
    DataType.UINT8: np.dtype("uint8"),
    DataType.UINT16: np.dtype("uint16"),
    DataType.UINT32: np.dtype("uint32"),
    DataType.UINT64: np.dtype("uint64"),
    DataType.INT8: np.dtype("int8"),
    DataType.INT16: np.dtype("int16"),
    DataType.INT32: np.dtype("int32"),
    DataType.INT64: np.dtype("int64"),
    DataType.FP16: np.dtype("float16"),
    DataType.FP32: np.dtype("float32"),
    DataType.FP64: np.dtype("float64"),
    DataType.BYTES: np.dtype("object"),
}
