"""One row as a gRPC call, in the messages of Triton's own client."""

from __future__ import annotations

import numpy as np

from inferloop.core.datatypes import Array
from serving.grpc_load import GrpcAsk


def triton_message(model: str, x: Array, y: Array) -> GrpcAsk:
    """`x` raw, all outputs; the answer must hold `y` and the id."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=list(x.shape))

    def message(name: str) -> bytes:
        request.id = name
        content: bytes = request.SerializeToString()
        return content

    def check(content: bytes, name: str) -> bool:
        answer = service_pb2.ModelInferResponse.FromString(content)
        if answer.raw_output_contents:
            got = np.frombuffer(answer.raw_output_contents[0], np.float32)
        else:
            got = np.array(answer.outputs[0].contents.fp32_contents, np.float32)
        return answer.id == name and np.allclose(got, y.ravel(), rtol=1e-4, atol=1e-6)

    return GrpcAsk(message, check)
