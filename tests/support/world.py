"""A small world to learn in: a network trained on one domain, a second domain that it does not know, and people who say so.

Every class is a cloud of points in four dimensions; the domains `home` and `abroad` have their clouds elsewhere. The bundle
is a layer of random features (the embedding, never trained) and a head fitted on `home`, with hold-out and replay rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import helper

from inferloop.core.bundle import HOLDOUT, REPLAY, Bundle
from inferloop.core.datatypes import Array, DataType
from inferloop.core.manifest import Head, Manifest
from inferloop.core.signature import Role, Signature, TensorSpec
from inferloop.core.transform import FieldKind, FieldTransform, OutputTransform, Step, Transforms
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.records import FeedbackRecord, PredictionRecord
from inferloop.evaluation.head import fit_head
from support import bundles

LABELS = ("calm", "glad", "cross")
WIDTH = 128
_CENTERS = {
    "home": np.array([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [-2.0, -2.0, 0, 0]]),
    "abroad": np.array([[0, 0, 3.0, 1.0], [3.0, 0, 3.0, 0], [0, 3.0, 3.0, 2.0]]),
}


def draw(domain: str, rows: int, *, seed: int) -> tuple[Array, Array]:
    """Points float32 [N, 4] and their classes int64 [N]."""
    random = np.random.default_rng(seed)
    label = random.integers(0, len(LABELS), rows)
    return (_CENTERS[domain][label] + 0.6 * random.normal(size=(rows, 4))).astype(np.float32), label


def bundle(path: Path, *, name: str = "mood", seed: int = 0, holdout_rows: int = 1500) -> Bundle:
    """The model as it was trained at home."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(4, WIDTH)).astype(np.float32)
    shift = (2.0 * random.normal(size=WIDTH)).astype(np.float32)
    x, y = draw("home", 900, seed=seed + 1)
    head = fit_head(np.maximum(x @ hidden + shift, 0), y, len(LABELS), c=0.1)
    weights = {
        "hidden": hidden,
        "shift": shift,
        "head.weight": head.weight.astype(np.float32),
        "head.bias": head.bias.astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "hidden", "shift"], ["features"], name="features"),
        helper.make_node("Relu", ["features"], ["embedding"], name="embedding"),
        helper.make_node("Gemm", ["embedding", "head.weight", "head.bias"], ["logits"], name="logits"),
    ]
    manifest = Manifest(
        name=name,
        signature=Signature(
            (TensorSpec("x", DataType.FP32, (None, 4)),),
            (
                TensorSpec("embedding", DataType.FP32, (None, WIDTH), Role.EMBEDDING),
                TensorSpec("logits", DataType.FP32, (None, len(LABELS))),
            ),
        ),
        labels=LABELS,
        transforms=Transforms(
            (FieldTransform("values", FieldKind.NUMBER, (Step("vector", {"size": 4}),), ("x",)),),
            (OutputTransform("logits", (Step("softmax"),)),),
        ),
        head=Head(embedding="embedding", output="logits", weight="head.weight", bias="head.bias"),
        lineage={"data": "drawn"},
    )
    frozen, truth = draw("home", holdout_rows, seed=seed + 2)
    files: dict[str, bytes | Path] = {
        HOLDOUT: bundles.npz({"inputs/x": frozen, "label": truth}),
        REPLAY: bundles.npz({"embedding": np.maximum(x @ hidden + shift, 0).astype(np.float32), "label": y}),
        "variants/int8/model.onnx": b"an optimized form of the old head",
    }
    return bundles.write(path, manifest, nodes=nodes, weights=weights, rows={"x": x[:16]}, files=files)


def embed(model: Bundle, x: Array) -> Array:
    """The embedding of points, float32 [N, WIDTH]."""
    from inferloop.evaluation.sessions import opened

    with opened(model) as session:
        return session.run({"x": x})["embedding"]


def give_feedback(
    ledger: Ledger,
    model: Bundle,
    x: Array,
    *,
    truths: Sequence[str],
    prefix: str = "p",
    keep_embedding: bool = True,
) -> list[str]:
    """Predictions of points in the ledger as a server writes them, each with its truth; returns their ids."""
    vectors = embed(model, x)
    began = time.time() - 86_400.0
    ids = [f"{prefix}{index:06d}" for index in range(len(x))]
    for index, (prediction_id, point) in enumerate(zip(ids, x, strict=True)):
        ledger.append(
            PredictionRecord(
                id=prediction_id,
                time=began + index,
                model=model.name,
                version=model.version,
                key=f"customer-{index % 50}",
                input=json.dumps({"values": [round(float(value), 6) for value in point]}).encode(),
                input_kind="json",
                embedding=vectors[index].astype("<f4").tobytes() if keep_embedding else None,
                source="test",
            )
        )
    ledger.flush()
    for prediction_id, truth in zip(ids, truths, strict=bool(truths)):
        ledger.feedback(FeedbackRecord(prediction_id, truth, "tester", time.time()))
    return ids
