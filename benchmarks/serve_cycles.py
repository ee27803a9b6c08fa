"""Load and unload one model again and again: what stays behind? Prints one JSON object with `rss_growth`.

python benchmarks/serve_cycles.py [--cycles 50] [--megabytes 20]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from inferloop.prediction.repository.repository import Control, Repository
from inferloop.prediction.router import Router
from inferloop.registry.registry import Registry

WARM_UP = 10
_PAGE_KB = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--megabytes", type=int, default=20)
    arguments = parser.parse_args()
    print(json.dumps(measure(cycles=arguments.cycles, megabytes=arguments.megabytes)))


def measure(*, cycles: int = 50, megabytes: int = 20) -> dict[str, float]:
    """Load a model, ask it, unload it, `cycles` times after a warm-up; the resident memory is read with nothing loaded.

    Returns:
        `rss_growth`: the median of the last fifth over the median of the first fifth, less 1; `first_mb`, `last_mb`, and
        `loaded_mb`: what one loaded model adds, so that a cycle is known to be one.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "models" / "big" / "1", megabytes)
        return asyncio.run(_measure(Path(folder), cycles))


def write_model(folder: Path, megabytes: int) -> None:
    """A matrix of that size: `x` FP32[N, 1024] -> `y`."""
    folder.mkdir(parents=True)
    columns = megabytes * 1024 * 1024 // (4 * 1024)
    weight = np.random.default_rng(0).normal(size=(1024, columns)).astype(np.float32)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 1024), ("y", columns))]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "big", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


async def _measure(folder: Path, cycles: int) -> dict[str, float]:
    tensors = {"x": np.ones((4, 1024), np.float32)}
    empty: list[float] = []
    loaded = 0.0
    with Registry(folder / "registry") as registry, Repository(folder / "models", control=Control.EXPLICIT) as repository:
        async with Router(registry, repository=repository) as router:
            for cycle in range(WARM_UP + cycles):
                await router.load("big")
                await router.infer("big", tensors)
                loaded = max(loaded, rss_mb())
                await router.unload("big")
                await router.settled()
                if cycle >= WARM_UP:
                    empty.append(rss_mb())
    part = max(1, len(empty) // 5)
    first, last = float(np.median(empty[:part])), float(np.median(empty[-part:]))
    return {"rss_growth": last / first - 1, "first_mb": first, "last_mb": last, "loaded_mb": loaded - first, "cycles": len(empty)}


def rss_mb() -> float:
    """The resident memory of this process, in MB."""
    gc.collect(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * _PAGE_KB / 1024


if __name__ == "__main__":
    main()
