"""A PyTorch module as an ONNX graph: named inputs and outputs, free axes, fp32, one file."""

from __future__ import annotations

import io
import logging
import warnings
from typing import TYPE_CHECKING

import onnx

from inferloop.core.datatypes import Tensors
from inferloop.core.errors import Unsupported
from inferloop.core.signature import Signature

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

OPSET = 18
_PRODUCER = "inferloop"


class PyTorchImporter:
    """Exports by tracing.

    torch has two exporters. For a six-layer transformer the tracing one took 3.5 s and kept the names of weights; the newer one,
    based on `torch.export`, took 20 s and wrote a graph that ONNX Runtime refused (two values of one name). Tracing follows one
    path through the code: a module whose control flow depends on values is not for it, and parity on real rows would show that.
    """

    def export(self, module: nn.Module, signature: Signature, *, example: Tensors) -> bytes:
        """The ONNX model.

        Args:
            module: in evaluation mode; `forward` takes the inputs and returns the outputs of `signature` in order.
            signature: names, and which axes are free.
            example: one array for every input, with at least 2 rows so that no axis looks fixed.

        Raises:
            Unsupported: the module uses an operation that ONNX lacks.
        """
        import torch

        inputs = tuple(torch.from_numpy(example[spec.name]) for spec in signature.inputs)
        buffer = io.BytesIO()
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # the exporter warns of itself and of every shape that it traces
                torch.onnx.export(
                    module,
                    inputs,
                    buffer,  # type: ignore[arg-type]  # takes a buffer, as its documentation says
                    input_names=[spec.name for spec in signature.inputs],
                    output_names=[spec.name for spec in signature.outputs],
                    dynamic_axes=_free_axes(signature),
                    opset_version=OPSET,
                    dynamo=False,
                )
        except Exception as error:  # the exporter raises its own errors, RuntimeError and TypeError
            raise Unsupported(f"torch cannot export {type(module).__name__} to ONNX: {error!s:.200}") from error
        model = onnx.load_from_string(buffer.getvalue())
        model.producer_name = _PRODUCER
        onnx.checker.check_model(model)
        log.info("exported", extra={"nodes": len(model.graph.node), "bytes": buffer.tell()})
        return bytes(model.SerializeToString())


def _free_axes(signature: Signature) -> dict[str, dict[int, str]]:
    """A name for every free axis: N for the batch, else the tensor's name and the axis."""
    return {
        spec.name: {axis: "N" if axis == 0 else f"{spec.name}_{axis}" for axis, size in enumerate(spec.shape) if size is None}
        for spec in (*signature.inputs, *signature.outputs)
    }
