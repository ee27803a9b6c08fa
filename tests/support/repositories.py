"""Model repositories on disk in the layouts of other servers, around the tiny models of `bundles`.

Version N of `numbered` answers N in every element, so that an answer shows which version gave it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from onnx import helper

from inferloop.core.datatypes import DataType
from inferloop.core.signature import Signature, TensorSpec
from support.bundles import graph


def numbered(
    root: Path, name: str, version: int, *, config: str = "", file: str = "model.onnx", answer: float | None = None
) -> Path:
    """Write `NAME/VERSION/model.onnx`: `x` FP32[N, 2] -> `y` FP32[N, 2], every element the version's number; in one step."""
    signature = Signature((_spec("x", None, 2),), (_spec("y", None, 2),))
    value = np.array([version if answer is None else answer], np.float32)
    zero = np.array([0], np.float32)
    nodes = [helper.make_node("Mul", ["x", "zero"], ["nothing"]), helper.make_node("Add", ["nothing", "value"], ["y"])]
    return place(root, name, version, graph(signature, nodes, {"zero": zero, "value": value}).SerializeToString(), config, file)


def doubling(root: Path, name: str, *, config: str = "", shape: Sequence[int | None] = (None, 2)) -> Path:
    """`x` -> `y` = 2 * `x`, of any shape."""
    signature = Signature((_spec("x", *shape),), (_spec("y", *shape),))
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return place(root, name, 1, graph(signature, nodes, {}).SerializeToString(), config)


def place(root: Path, name: str, version: int, content: bytes, config: str = "", file: str = "model.onnx") -> Path:
    """Put the file of a version in its place by a rename, as careful tools do."""
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    if config:
        (root / name / "config.pbtxt").write_text(config)
    partial = folder / ".partial"
    partial.write_bytes(content)
    partial.replace(folder / file)
    return folder / file


async def until(condition: Callable[[], bool], *, timeout_s: float = 120.0) -> None:
    """Wait for a state, not for a time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.005)


def _spec(name: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name, DataType.FP32, tuple(shape))
