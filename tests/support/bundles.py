"""Tiny bundles, built in milliseconds with `onnx.helper`: every engine runs them, every file a real bundle has is there.

    linear        x FP32[N, 4]                            -> scores FP32[N, 3]           no transforms
    mlp           x FP32[N, 4]                            -> embedding [N, 8], logits [N, 3]    head, holdout, replay
    numbers       field `values` (number) -> x [N, 4]     -> embedding, logits           softmax, labels, head
    text          field `text` -> ids INT64, counts FP32  -> embedding, logits           hashed n-grams, labels, head
    image         field `image` -> pixels [N, 1, 8, 8]    -> embedding, logits           softmax, labels, head

All take `name`, `seed` and `bias`; a large `bias` on one class makes a model that always answers it, so that a test can see
which version answered.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from inferloop.core.bundle import GOLDEN, HOLDOUT, MODEL, REPLAY, Bundle, golden_arrays
from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.manifest import Head, Manifest
from inferloop.core.signature import Role, Signature, TensorSpec
from inferloop.core.transform import FieldKind, FieldTransform, OutputTransform, Step, Transforms

LABELS = ("cold", "warm", "hot")
BUCKETS = 256


def linear(path: Path, *, name: str = "linear", seed: int = 0, bias: Sequence[float] | None = None) -> Bundle:
    """One Gemm: `x` FP32[N, 4] to `scores` FP32[N, 3]; no labels, no transforms, no embedding."""
    random = np.random.default_rng(seed)
    signature = Signature((_spec("x", None, 4),), (_spec("scores", None, 3),))
    weights = {"weight": _normal(random, 4, 3), "bias": _bias(bias, random)}
    nodes = [helper.make_node("Gemm", ["x", "weight", "bias"], ["scores"], name="scores")]
    return write(path, Manifest(name=name, signature=signature), nodes=nodes, weights=weights, rows={"x": _normal(random, 8, 4)})


def mlp(path: Path, *, name: str = "mlp", seed: int = 0, bias: Sequence[float] | None = None) -> Bundle:
    """A hidden layer as embedding and a linear head, with hold-out and replay rows; labels, no input transforms."""
    return _dense(path, name, seed, bias, Transforms(outputs=(_softmax(),)))


def numbers(path: Path, *, name: str = "numbers", seed: int = 0, bias: Sequence[float] | None = None) -> Bundle:
    """The same network on a field `values` of four numbers."""
    field = FieldTransform("values", FieldKind.NUMBER, (Step("vector", {"size": 4}),), ("x",))
    return _dense(path, name, seed, bias, Transforms((field,), (_softmax(),)))


def text(path: Path, *, name: str = "text", seed: int = 0, bias: Sequence[float] | None = None) -> Bundle:
    """Hashed n-grams of a field `text`: a table of vectors, weighted and summed, then the head. Id 0 is padding."""
    random = np.random.default_rng(seed)
    inputs = (TensorSpec("ids", DataType.INT64, (None, None)), _spec("counts", None, None))
    options = {"word": [1, 2], "char": [], "buckets": BUCKETS, "lowercase": True, "max_ngrams": 64, "pad_multiple": 8}
    field = FieldTransform("text", FieldKind.TEXT, (Step("ngrams", options),), ("ids", "counts"))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["vectors"], name="vectors"),
        helper.make_node("Unsqueeze", ["counts", "last"], ["column"], name="column"),
        helper.make_node("Mul", ["vectors", "column"], ["weighted"], name="weighted"),
        helper.make_node("ReduceSum", ["weighted", "middle"], ["embedding"], name="embedding", keepdims=0),
        *_head_nodes(),
    ]
    weights = {
        "table": _normal(random, BUCKETS + 1, 8),
        "last": np.array([2], dtype=np.int64),
        "middle": np.array([1], dtype=np.int64),
        **_head_weights(random, bias),
    }
    ids = random.integers(1, BUCKETS, (8, 8))
    rows: Tensors = {"ids": ids, "counts": np.ones((8, 8), np.float32)}
    return _with_head(path, name, inputs, Transforms((field,), (_softmax(),)), nodes, weights, rows)


def image(path: Path, *, name: str = "image", seed: int = 0, bias: Sequence[float] | None = None) -> Bundle:
    """An 8x8 grayscale image of a field `image`, flattened into one hidden layer, then the head."""
    random = np.random.default_rng(seed)
    steps = (
        Step("decode", {"mode": "L"}),
        Step("resize", {"width": 8, "height": 8}),
        Step("to_float", {"scale": 1 / 255}),
        Step("layout", {"order": "CHW"}),
    )
    field = FieldTransform("image", FieldKind.IMAGE, steps, ("pixels",))
    nodes = [helper.make_node("Flatten", ["pixels"], ["x"], name="x", axis=1), *_hidden_nodes(), *_head_nodes()]
    weights = {"hidden.weight": _normal(random, 64, 8), "hidden.bias": _normal(random, 8), **_head_weights(random, bias)}
    rows: Tensors = {"pixels": random.random((8, 1, 8, 8), dtype=np.float32)}
    inputs = (_spec("pixels", None, 1, 8, 8),)
    return _with_head(path, name, inputs, Transforms((field,), (_softmax(),)), nodes, weights, rows)


def png(value: int = 200, *, size: int = 8) -> bytes:
    """A gray PNG for the `image` bundle."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (size, size), value).save(stream, format="PNG")
    return stream.getvalue()


def write(
    path: Path,
    manifest: Manifest,
    *,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Array],
    rows: Tensors,
    files: Mapping[str, bytes | Path] | None = None,
) -> Bundle:
    """Write any small graph as a bundle; the golden outputs are ONNX's own reference evaluator's."""
    model = graph(manifest.signature, nodes, weights)
    golden = golden_arrays(rows, reference(model, rows))
    content: dict[str, bytes | Path] = {MODEL: model.SerializeToString(), GOLDEN: npz(golden), **(files or {})}
    return Bundle.write(path, manifest, content)


def graph(signature: Signature, nodes: Sequence[onnx.NodeProto], weights: Mapping[str, Array]) -> onnx.ModelProto:
    """An ONNX model of opset 17 with the signature's inputs and outputs."""
    sides = [[_value(spec) for spec in side] for side in (signature.inputs, signature.outputs)]
    initializers = [numpy_helper.from_array(array, key) for key, array in weights.items()]
    built = helper.make_graph(list(nodes), "tiny", sides[0], sides[1], initializers)
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def reference(model: onnx.ModelProto, inputs: Tensors) -> dict[str, Array]:
    """The outputs of ONNX's reference evaluator: neither of our engines."""
    from onnx.reference import ReferenceEvaluator

    names = [value.name for value in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(names, dict(inputs)), strict=True))


def npz(arrays: Mapping[str, Array]) -> bytes:
    """The content of an `.npz` file."""
    stream = io.BytesIO()
    np.savez(stream, **dict(arrays))  # type: ignore[arg-type]  # numpy types the flags, we give arrays only
    return stream.getvalue()


def _dense(path: Path, name: str, seed: int, bias: Sequence[float] | None, transforms: Transforms) -> Bundle:
    random = np.random.default_rng(seed)
    weights = {"hidden.weight": _normal(random, 4, 8), "hidden.bias": _normal(random, 8), **_head_weights(random, bias)}
    rows: Tensors = {"x": _normal(random, 8, 4)}
    nodes = [*_hidden_nodes(), *_head_nodes()]
    return _with_head(path, name, (_spec("x", None, 4),), transforms, nodes, weights, rows)


def _with_head(
    path: Path,
    name: str,
    inputs: tuple[TensorSpec, ...],
    transforms: Transforms,
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Array],
    rows: Tensors,
) -> Bundle:
    outputs = (TensorSpec("embedding", DataType.FP32, (None, 8), Role.EMBEDDING), _spec("logits", None, 3))
    signature = Signature(inputs, outputs)
    found = reference(graph(signature, nodes, weights), rows)
    label = found["logits"].argmax(1).astype(np.int64)
    files: dict[str, bytes | Path] = {
        HOLDOUT: npz({**{f"inputs/{key}": array for key, array in rows.items()}, "label": label}),
        REPLAY: npz({"embedding": found["embedding"], "label": label}),
    }
    head = Head(embedding="embedding", output="logits", weight="head.weight", bias="head.bias")
    manifest = Manifest(name=name, signature=signature, labels=LABELS, transforms=transforms, head=head)
    return write(path, manifest, nodes=nodes, weights=weights, rows=rows, files=files)


def _hidden_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gemm", ["x", "hidden.weight", "hidden.bias"], ["hidden"], name="hidden"),
        helper.make_node("Relu", ["hidden"], ["embedding"], name="embedding"),
    ]


def _head_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("MatMul", ["embedding", "head.weight"], ["product"], name="product"),
        helper.make_node("Add", ["product", "head.bias"], ["logits"], name="logits"),
    ]


def _head_weights(random: np.random.Generator, bias: Sequence[float] | None) -> dict[str, Array]:
    return {"head.weight": _normal(random, 8, 3), "head.bias": _bias(bias, random)}


def _softmax() -> OutputTransform:
    return OutputTransform("logits", (Step("softmax"),))


def _spec(name: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name, DataType.FP32, shape)


def _bias(bias: Sequence[float] | None, random: np.random.Generator) -> Array:
    return _normal(random, 3) if bias is None else np.asarray(bias, np.float32)


def _normal(random: np.random.Generator, *shape: int) -> Array:
    return random.normal(size=shape).astype(np.float32)


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    shape = [f"{spec.name}_{axis}" if size is None else size for axis, size in enumerate(spec.shape)]
    shape = ["N", *shape[1:]] if spec.batched else shape
    return helper.make_tensor_value_info(spec.name, helper.np_dtype_to_tensor_dtype(spec.dtype.numpy), shape)
