"""KServe's Python SDK: a Model that answers the protocol."""

import sys

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Tiny(Model):
    def __init__(self, path: str) -> None:
        super().__init__("tiny")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(self, payload: InferRequest, headers: dict | None = None, response_headers: dict | None = None) -> InferResponse:
        y = self.session.run(None, {"x": payload.inputs[0].as_numpy()})[0]
        output = InferOutput(name="y", shape=list(y.shape), datatype="FP32", data=y.ravel().tolist())
        return InferResponse(response_id=payload.id or "1", model_name="tiny", infer_outputs=[output])


ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1, access_log_format=None).start([Tiny(sys.argv[1])])
