"""FastAPI as people write it for the protocol: pydantic models, an async route, ONNX Runtime."""

import sys
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class Request(BaseModel):
    id: str | None = None
    inputs: list[Tensor]


@app.get("/v2/health/ready")
async def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/v2/models/tiny/infer")
async def infer(request: Request) -> dict[str, Any]:
    feeds = {item.name: np.array(item.data, np.float32).reshape(item.shape) for item in request.inputs}
    y = session.run(None, feeds)[0]
    output = {"name": "y", "shape": list(y.shape), "datatype": "FP32", "data": y.ravel().tolist()}
    return {"model_name": "tiny", "model_version": "1", "outputs": [output]}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), access_log=False, log_level="warning")
