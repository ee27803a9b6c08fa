"""The model, the messages and the pipeline file that every measurement of streams uses."""

from __future__ import annotations

import json
import random
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from onnx import helper

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import DataType
from inferloop.core.manifest import Manifest
from inferloop.core.signature import Signature, TensorSpec
from inferloop.core.transform import FieldKind, FieldTransform, OutputTransform, Step, Transforms
from support.bundles import LABELS, write

KEYS = 50
WIDTH = 32
CLIENT = "bench"
TOPIC = "plant/values"


def model(folder: Path) -> Bundle:
    """A perceptron 32-64-64-3 on the field `values`, with labels and softmax."""
    dice = np.random.default_rng(0)
    sizes = (WIDTH, 64, 64, len(LABELS))
    nodes, weights, last = [], {}, "x"
    for number, (wide, narrow) in enumerate(pairwise(sizes)):
        weights[f"w{number}"] = (dice.normal(size=(wide, narrow)) / np.sqrt(wide)).astype(np.float32)
        weights[f"b{number}"] = np.zeros(narrow, np.float32)
        out = "logits" if number == len(sizes) - 2 else f"h{number}"
        nodes.append(helper.make_node("Gemm", [last, f"w{number}", f"b{number}"], [out]))
        if out != "logits":
            last = f"r{number}"
            nodes.append(helper.make_node("Relu", [out], [last]))
    signature = Signature((TensorSpec("x", DataType.FP32, (None, WIDTH)),), (TensorSpec("logits", DataType.FP32, (None, 3)),))
    field = FieldTransform("values", FieldKind.NUMBER, (Step("vector", {"size": WIDTH}),), ("x",))
    transforms = Transforms((field,), (OutputTransform("logits", (Step("softmax"),)),))
    manifest = Manifest(name="plant", signature=signature, labels=LABELS, transforms=transforms)
    rows = {"x": dice.normal(size=(4, WIDTH)).astype(np.float32)}
    return write(folder, manifest, nodes=nodes, weights=weights, rows=rows)


def messages(count: int) -> list[bytes]:
    """JSON of about 300 bytes: id, key of 50 devices, time, 32 numbers."""
    dice = random.Random(1)
    return [
        json.dumps(
            {
                "id": f"m{number}",
                "device": f"d{number % KEYS}",
                "at": time.time(),
                "values": [round(dice.gauss(0, 1), 2) for _ in range(WIDTH)],
            }
        ).encode()
        for number in range(count)
    ]


def mqtt(url: str) -> dict[str, Any]:
    """The source that most measurements use."""
    return {"mqtt": {"url": url, "topics": [TOPIC], "client_id": CLIENT, "in_flight": 2048}}


def pipeline(folder: Path, source: dict[str, Any], *, acts: bool) -> Path:
    """The file: every hot message goes to a file; with `acts` false nothing goes anywhere."""
    rule = {"name": "hot", "label": "hot", "above": 0.3 if acts else 2.0, "send": ["out"]}
    content = {
        "pipeline": "plant",
        "sources": {"plant": source},
        "message": {
            "json": {"id": "$.id", "key": "$.device", "time": "$.at", "fields": {"values": {"path": "$.values", "type": "array"}}}
        },
        "model": {"ref": "plant@champion", "batch": {"max": 64, "max_delay": "5ms"}},
        "rules": [rule],
        "sinks": {"out": {"file": {"path": str(folder / "out.jsonl"), "json": {"id": "=id", "score": "=score"}}}},
    }
    path = folder / "plant.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
