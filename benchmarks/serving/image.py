"""An image of 602 KB through us and through Triton, one client that waits for each answer."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness import Row, judged
from inferloop.core.datatypes import Array
from serving import asks, models
from serving.contenders import PEERS, ours
from serving.load import Failed, latencies
from serving.process import NotReady, Server

_COUNT = {"binary": 200, "grpc": 200, "json": 15}
_ROUNDS = 5


def rows(folder: Path, command: str) -> list[Row]:
    """p50 ratios; for binary the worse of HTTP and gRPC."""
    bundle = models.image(folder / "image-model")
    x = models.row(bundle)
    y = models.bare(bundle)(x)
    try:
        with (
            ours(str(bundle.path), folder=folder / "image", grpc=True, options=["--grpc-transport", "http2"]) as mine,
            PEERS["pytriton"].start(bundle, folder / "triton-image") as triton,
        ):
            p50 = {name: _p50_ms(mine, triton, way) for name, way in _ways(x, y).items()}
    except (NotReady, Failed) as error:
        print(f"image beside Triton left out: {error}", file=sys.stderr)
        return []
    ratios = {name: ours_ms / triton_ms for name, (ours_ms, triton_ms) in p50.items()}
    binary = max(ratios["binary"], ratios["grpc"])
    return [
        judged("image_binary_vs_triton", round(binary, 3), "", goal="<= 1.3", command=command),
        judged("image_json_vs_triton", round(ratios["json"], 3), "", goal="<= 0.5", command=command),
        *(judged(f"image_{name}_p50_ms", round(mine, 2), "ms", goal="", command=command, peer=f"Triton {theirs:.2f}")
          for name, (mine, theirs) in p50.items()),
    ]  # fmt: skip


def _ways(x: Array, y: Array) -> dict[str, Callable[[Server], list[float]]]:
    binary, json_ask = asks.protocol_binary("image", x, y), asks.protocol_json("image", x, y)
    return {
        "binary": lambda server: latencies(server, binary, count=_COUNT["binary"]),
        "grpc": lambda server: _grpc(server, x, y),
        "json": lambda server: latencies(server, json_ask, count=_COUNT["json"], warm=2),
    }


def _p50_ms(mine: Server, triton: Server, way: Callable[[Server], list[float]]) -> tuple[float, float]:
    """The median over rounds of each side's p50."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for side, server in zip(found, (mine, triton), strict=True):
            side.append(statistics.median(way(server)) * 1e3)
    return statistics.median(found[0]), statistics.median(found[1])


def _grpc(server: Server, x: Array, y: Array) -> list[float]:
    """Triton's own client, a request ready-made, so that the wire and the server are measured and not its encoding."""
    import grpc
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="image", raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=list(x.shape))
    content = request.SerializeToString()
    taken = []
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for number in range(_COUNT["grpc"] + 20):
            started = time.perf_counter()
            answer = service_pb2.ModelInferResponse.FromString(call(content))
            if number >= 20:
                taken.append(time.perf_counter() - started)
            if not np.allclose(np.frombuffer(answer.raw_output_contents[0], np.float32), y.ravel(), rtol=1e-4):
                raise Failed("a wrong answer over gRPC")
    return taken
