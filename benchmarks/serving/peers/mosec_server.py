"""mosec with dynamic batches of 64, in its own JSON form; it reads the arguments itself, so the model's path is in MODEL."""

import os

import numpy as np
import onnxruntime
from mosec import Server, Worker


class Model(Worker):
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def forward(self, data: list[dict]) -> list[dict]:
        rows = [np.array(item["x"], np.float32) for item in data]
        y = self.session.run(None, {"x": np.concatenate(rows)})[0]
        found, start = [], 0
        for row in rows:
            found.append({"y": y[start : start + len(row)].tolist()})
            start += len(row)
        return found


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=1, max_batch_size=64, max_wait_time=1)
    server.run()
