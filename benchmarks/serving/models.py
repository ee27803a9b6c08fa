"""The models under test, written as bundles: a tiny one, one that reads an image, and one of the size of ResNet-50."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from inferloop.core.bundle import GOLDEN, MODEL, Bundle, golden_arrays
from inferloop.core.datatypes import Array, DataType
from inferloop.core.manifest import Manifest
from inferloop.core.signature import Signature, TensorSpec

IMAGE = (3, 224, 224)
"""602,112 bytes in FP32."""

_BLOCKS = ((3, 256, 1), (4, 512, 2), (6, 1024, 2), (3, 2048, 2))
"""ResNet-50's stages: blocks, channels out, stride of the first (He et al. 2015, table 1)."""


def tiny(folder: Path) -> Bundle:
    """A perceptron 4-16-3: `x` FP32[N, 4] to `y` FP32[N, 3]."""
    random = np.random.default_rng(0)
    graph = Graph()
    hidden = graph.node("Relu", graph.node("Gemm", "x", random.normal(size=(4, 16)), random.normal(size=16)))
    graph.node("Gemm", hidden, random.normal(size=(16, 3)), random.normal(size=3), output="y")
    return graph.bundle(folder / "tiny", (None, 4), (None, 3))


def image(folder: Path) -> Bundle:
    """The mean of each channel of an image: `x` FP32[N, 3, 224, 224] to `y` FP32[N, 3]; the wire costs more than the model."""
    graph = Graph()
    graph.node("ReduceMean", "x", output="y", axes=[2, 3], keepdims=0)
    return graph.bundle(folder / "image", (None, *IMAGE), (None, 3))


def resnet(folder: Path) -> Bundle:
    """ResNet-50's shape with random weights: 53 convolutions, 25 million parameters, `x` [N, 3, 224, 224] to `y` [N, 1000]."""
    random = np.random.default_rng(0)
    graph = Graph()
    last = graph.node(
        "MaxPool", graph.conv("x", 3, 64, random, size=7, stride=2), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
    )
    channels = 64
    for blocks, wide, stride in _BLOCKS:
        for block in range(blocks):
            last = _bottleneck(graph, last, channels, wide, random, stride if block == 0 else 1)
            channels = wide
    pooled = graph.node("Flatten", graph.node("GlobalAveragePool", last))
    graph.node("Gemm", pooled, random.normal(size=(channels, 1000)) / 50, np.zeros(1000), output="y")
    return graph.bundle(folder / "resnet", (None, *IMAGE), (None, 1000))


def row(bundle: Bundle, *, seed: int = 1) -> Array:
    """One random row for the model's input."""
    shape = [size or 1 for size in bundle.signature.inputs[0].shape]
    return np.random.default_rng(seed).random(shape, np.float32)


def bare(bundle: Bundle) -> Callable[[Array], Array]:
    """The engine without us: one thread, `session.run` and nothing else."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(bundle.path / MODEL), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


class Graph:
    """An ONNX graph from `x` to `y` that is written node by node."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str | Array, output: str = "", **attributes: object) -> str:
        """Add a node; arrays become initializers. Returns the name of its output."""
        names = [value if isinstance(value, str) else self._weight(value) for value in inputs]
        output = output or f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def conv(self, value: str, taken: int, given: int, random: np.random.Generator, *, size: int = 1, stride: int = 1) -> str:
        """A convolution with bias, then ReLU."""
        return self.node("Relu", self.plain_conv(value, taken, given, random, size=size, stride=stride))

    def plain_conv(
        self, value: str, taken: int, given: int, random: np.random.Generator, *, size: int = 1, stride: int = 1
    ) -> str:
        """A convolution with bias; He's initialization keeps the values of one order."""
        weight = random.normal(0, (2 / (taken * size * size)) ** 0.5, (given, taken, size, size))
        return self.node(
            "Conv", value, weight, np.zeros(given), kernel_shape=[size, size], strides=[stride] * 2, pads=[size // 2] * 4
        )

    def bundle(self, path: Path, taken: tuple[int | None, ...], given: tuple[int | None, ...]) -> Bundle:
        """Write it; the golden outputs are the bare engine's."""
        signature = Signature((TensorSpec("x", DataType.FP32, taken),), (TensorSpec("y", DataType.FP32, given),))
        sides = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape[1:]])
            for name, shape in (("x", taken), ("y", given))
        ]
        graph = helper.make_graph(self._nodes, path.name, sides[:1], sides[1:], self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        content = model.SerializeToString()
        x = np.random.default_rng(2).random([size or 2 for size in taken], np.float32)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        stream = io.BytesIO()
        np.savez(stream, **golden_arrays({"x": x}, {"y": session.run(None, {"x": x})[0]}))
        return Bundle.write(path, Manifest(name=path.name, signature=signature), {MODEL: content, GOLDEN: stream.getvalue()})

    def _weight(self, array: Array) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name


def _bottleneck(graph: Graph, value: str, taken: int, given: int, random: np.random.Generator, stride: int) -> str:
    narrow = given // 4
    inner = graph.conv(graph.conv(value, taken, narrow, random), narrow, narrow, random, size=3, stride=stride)
    last = graph.plain_conv(inner, narrow, given, random)
    shortcut = value if taken == given and stride == 1 else graph.plain_conv(value, taken, given, random, stride=stride)
    halves = graph.node("Mul", graph.node("Add", last, shortcut), np.float32([0.5]))
    return graph.node("Relu", halves)
