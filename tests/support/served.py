"""Small models that are served in special ways: decoupled, stateful, side by side; and a Router's world around them.

rep      x FP32[-1]                     -> y FP32[2, -1]                decoupled: the answers x and x + 1
adder    x FP32[N, 1], total FP32[N, 1] -> y = total_out = x + total    stateful: y is the sum of the sequence so far
echo     x FP32[N, 2]                   -> y FP32[N, 2]                 the same values
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, DataType
from inferloop.core.manifest import Manifest
from inferloop.core.signature import Role, Signature, TensorSpec
from support import bundles


def rep(path: Path, *, name: str = "rep") -> Bundle:
    """Triton's `rep`: with `ModelSettings(decoupled=True)` a request gets two answers, `x` and `x + 1`."""
    signature = Signature((_spec("x", None),), (_spec("y", 2, None),))
    nodes = [
        helper.make_node("Unsqueeze", ["x", "first"], ["row"], name="row"),
        helper.make_node("Add", ["row", "steps"], ["y"], name="y"),
    ]
    weights: dict[str, Array] = {"first": np.array([0], np.int64), "steps": np.array([[0.0], [1.0]], np.float32)}
    rows = {"x": np.arange(3, dtype=np.float32)}
    return bundles.write(path, Manifest(name=name, signature=signature), nodes=nodes, weights=weights, rows=rows)


def adder(path: Path, *, name: str = "adder") -> Bundle:
    """With `ModelSettings(sequence=SequenceSettings())` every answer is the sum of its sequence so far."""
    inputs = (_spec("x", None, 1), TensorSpec("total", DataType.FP32, (None, 1), Role.STATE))
    outputs = (_spec("y", None, 1), TensorSpec("total_out", DataType.FP32, (None, 1), Role.STATE))
    nodes = [
        helper.make_node("Add", ["x", "total"], ["y"], name="y"),
        helper.make_node("Identity", ["y"], ["total_out"], name="total_out"),
    ]
    rows = {"x": np.ones((4, 1), np.float32), "total": np.arange(4, dtype=np.float32)[:, None]}
    manifest = Manifest(name=name, signature=Signature(inputs, outputs))
    return bundles.write(path, manifest, nodes=nodes, weights={}, rows=rows)


def echo(path: Path, *, name: str = "echo") -> Bundle:
    """Gives `x` back as `y`."""
    signature = Signature((_spec("x", None, 2),), (_spec("y", None, 2),))
    nodes = [helper.make_node("Identity", ["x"], ["y"], name="y")]
    rows = {"x": np.ones((4, 2), np.float32)}
    return bundles.write(path, Manifest(name=name, signature=signature), nodes=nodes, weights={}, rows=rows)


def _spec(name: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name, DataType.FP32, shape)
