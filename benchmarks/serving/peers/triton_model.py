"""Triton's Python backend in front of ONNX Runtime; the repository's folder beside it holds model.onnx."""

from pathlib import Path

import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, args: dict) -> None:
        import onnxruntime  # found once the module above has put the environment on the path

        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list) -> list:
        answers = []
        for request in requests:
            x = utils.get_input_tensor_by_name(request, "x").as_numpy()
            y = self.session.run(None, {"x": x})[0]
            answers.append(utils.InferenceResponse(output_tensors=[utils.Tensor("y", y)]))
        return answers
