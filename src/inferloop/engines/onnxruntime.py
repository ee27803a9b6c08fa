"""ONNX Runtime on the CPU: the default engine."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import EngineError, InvalidInput, Unsupported
from inferloop.core.protocols import Engine, Session
from inferloop.core.signature import Signature
from inferloop.core.target import Precision, Target
from inferloop.engines import brain_floats

_FATAL = 4  # what the runtime would log comes back as an EngineError


class OnnxRuntimeEngine(Engine):
    """Runs `model.onnx` with as many intra-op threads as the target says, 1 by default."""

    def load(self, bundle: Bundle, target: Target) -> Session:
        """See `Engine.load`."""
        if target.device not in self.devices():
            raise Unsupported(f"onnxruntime here has no device {target.device!r}", hint=f"found: {', '.join(self.devices())}")
        if target.precision is not Precision.F32:
            raise Unsupported(f"bundle {bundle.name!r} has no {target.precision} variant for onnxruntime", hint="known: f32")
        return OnnxRuntimeSession(bundle, target.threads)

    def devices(self) -> tuple[str, ...]:
        """See `Engine.devices`."""
        return ("cpu",) if "CPUExecutionProvider" in ort.get_available_providers() else ()


class OnnxRuntimeSession(Session):
    """One `InferenceSession`, whose weights all its callers share."""

    concurrent = True

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.signature = bundle.signature
        try:
            session = ort.InferenceSession(str(bundle.model_path), _options(threads), providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own exceptions share no base class
            raise EngineError(f"onnxruntime cannot load {bundle.model_path}: {_first_line(error)}") from error
        self._session: ort.InferenceSession | None = session
        self._outputs = [spec.name for spec in self.signature.outputs]
        self._texts = [spec.name for spec in self.signature.inputs if spec.dtype is DataType.BYTES]
        specs = (*self.signature.inputs, *self.signature.outputs)
        self._run = brain_floats.run if any(spec.dtype is DataType.BF16 for spec in specs) else ort.InferenceSession.run
        _check_names(self.signature, session, str(bundle.model_path))

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """See `Session.run`."""
        session = self._session
        if session is None:
            raise EngineError("the onnxruntime session is closed")
        if self._texts:
            inputs = {name: _text(array) if name in self._texts else array for name, array in inputs.items()}
        try:
            arrays = self._run(session, self._outputs, inputs)
        except Exception as error:  # the runtime's own exceptions share no base class
            raise EngineError(f"onnxruntime: {_first_line(error)}") from error
        return {
            name: _bytes(array) if array.dtype == object else array for name, array in zip(self._outputs, arrays, strict=True)
        }

    def close(self) -> None:
        """See `Session.close`."""
        self._session = None


def _options(threads: int) -> ort.SessionOptions:
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    return options


def _check_names(signature: Signature, session: ort.InferenceSession, path: str) -> None:
    for side, specs, found in (
        ("inputs", signature.inputs, session.get_inputs()),
        ("outputs", signature.outputs, session.get_outputs()),
    ):
        declared, real = {spec.name for spec in specs}, {value.name for value in found}
        if (declared != real) if side == "inputs" else not declared <= real:
            raise EngineError(f"{path} has the {side} {sorted(real)}, its bundle declares {sorted(declared)}")


def _text(array: Array) -> Array:
    """The runtime takes strings only; bytes that are no UTF-8 are an input it cannot have."""
    try:
        texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidInput("onnxruntime takes UTF-8 text only in BYTES tensors") from error
    return np.array(texts, dtype=object).reshape(array.shape)


def _bytes(array: Array) -> Array:
    encoded = np.empty(array.shape, dtype=object)
    encoded.ravel()[:] = [item.encode() if isinstance(item, str) else item for item in array.ravel()]
    return encoded


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
