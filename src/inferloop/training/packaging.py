"""A trained network as a Bundle: calibrated, exported, held against PyTorch on real rows, judged once on the holdout.

Trained -> temperature into the head -> ONNX -> draft Bundle -> its own transforms and session on real rows
        -> parity, holdout, golden -> the Bundle
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inferloop.core import plugins
from inferloop.core.bundle import GOLDEN, HOLDOUT, MODEL, REPLAY, Bundle, golden_arrays
from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import EngineError
from inferloop.core.manifest import Manifest
from inferloop.core.protocols import Session
from inferloop.core.signature import Role, Signature, TensorSpec
from inferloop.core.target import Target
from inferloop.core.transform import OutputTransform, Step, Transforms
from inferloop.data.transforms.executor import TransformExecutor
from inferloop.evaluation.calibration import ece, fit_temperature, softmax
from inferloop.importers.pytorch import PyTorchImporter
from inferloop.training.config import TrainConfig
from inferloop.training.corpus import Corpus
from inferloop.training.network import EMBEDDING, HEAD, LOGITS, Trained
from inferloop.training.watch import Watch

GOLDEN_ROWS = 16
PARITY_ROWS = 64
HOLDOUT_ROWS = 2000
REPLAY_ROWS = 5000
TOLERANCE = 1e-3
_BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class Packaged:
    """What is to be written, and what the holdout showed.

    Attributes:
        manifest: complete but for the evaluation.
        files: contents, or paths inside the folder that was handed over.
        logits: of all holdout rows, float32 [N, C], by the session that will serve.
        temperature: that was folded into the head.
        ece: on the validation rows before and after it.
    """

    manifest: Manifest
    files: Mapping[str, bytes | Path]
    logits: Array
    temperature: float
    ece: tuple[float, float]


def package(trained: Trained, corpus: Corpus, config: TrainConfig, *, folder: Path, watch: Watch) -> Packaged:
    """Export and prove; `folder` is an empty directory that must live until the Bundle is written.

    Raises:
        EngineError: the exported graph does not compute what PyTorch computes.
        StorageError: the disk is full.
    """
    temperature, before, after = _calibrate(trained, corpus)
    watch.stage("exporting", 0, 1)
    draft = _draft(trained, corpus, config, path=folder / "draft")
    executor = TransformExecutor(draft)
    rows = [executor.apply(sample) for sample in corpus.holdout.samples]
    session = plugins.load("engines", Target().engine)().load(draft, Target(threads=config.threads))
    try:
        parity = _prove(trained, session, rows)
        judged = _judge(session, rows, watch)
    finally:
        session.close()
    kept = _spread_over_labels(corpus.holdout.labels, HOLDOUT_ROWS, seed=config.seed)
    files: dict[str, bytes | Path] = {
        **{name: draft.path / name for name in draft.manifest.files},
        GOLDEN: _npz(_golden(trained, rows)),
        HOLDOUT: _npz(_holdout([rows[index] for index in kept], corpus.holdout.labels[kept], judged[EMBEDDING][kept])),
        REPLAY: _npz(_replay(trained, seed=config.seed)),
    }
    lineage = _lineage(corpus, config, trained, libraries=executor.libraries(), temperature=temperature)
    manifest = replace(draft.manifest, parity=parity, lineage=lineage, created="")
    return Packaged(manifest, files, judged[LOGITS], temperature, (before, after))


def _calibrate(trained: Trained, corpus: Corpus) -> tuple[float, float, float]:
    """Fold the temperature into the head; returns it with the calibration error before and after."""
    labels = corpus.validation.labels
    head = trained.network.head.fitted()
    logits = trained.logits if trained.logits is not None else head.logits(trained.embedding[: trained.validation])
    temperature = fit_temperature(logits, labels)
    trained.network.head.take(head.scaled(temperature))
    return temperature, ece(softmax(logits), labels), ece(softmax(logits / temperature), labels)


def _signature(trained: Trained, classes: int) -> Signature:
    width = trained.embedding.shape[1]
    outputs = (
        TensorSpec(EMBEDDING, DataType.FP32, (None, width), Role.EMBEDDING),
        TensorSpec(LOGITS, DataType.FP32, (None, classes)),
    )
    return Signature(trained.inputs, outputs)


def _draft(trained: Trained, corpus: Corpus, config: TrainConfig, *, path: Path) -> Bundle:
    """The exported graph with its declarations, so that its own transforms can be run."""
    signature = _signature(trained, corpus.classes)
    manifest = Manifest(
        name=config.name,
        signature=signature,
        description=f"{config.task}: {', '.join(corpus.labels[:6])}" + (", ..." if corpus.classes > 6 else ""),
        owner=config.owner,
        license=config.license or trained.license,
        labels=corpus.labels,
        transforms=Transforms(trained.fields, (OutputTransform(LOGITS, (Step("softmax"),)),)),
        head=HEAD,
    )
    example = _example(trained.inputs)
    content = PyTorchImporter().export(trained.network, signature, example=example)
    return Bundle.write(path, manifest, {MODEL: content, **trained.assets})


def _example(inputs: Sequence[TensorSpec]) -> Tensors:
    """Two rows of ones; axes that are free have 16 places."""
    return {
        spec.name: np.ones([size or (2 if axis == 0 else 16) for axis, size in enumerate(spec.shape)], spec.dtype.numpy)
        for spec in inputs
    }


def _prove(trained: Trained, session: Session, rows: Sequence[Tensors]) -> dict[str, Any]:
    """Session against PyTorch on real rows, alone and as one batch."""
    chosen = [rows[int(index)] for index in np.linspace(0, len(rows) - 1, min(PARITY_ROWS, len(rows)))]
    batches = [*chosen[: PARITY_ROWS // 4], collate(chosen)]
    worst, scale = dict.fromkeys((EMBEDDING, LOGITS), 0.0), dict.fromkeys((EMBEDDING, LOGITS), 1.0)
    for batch in batches:
        got, want = session.run(batch), _torch_outputs(trained, batch)
        for name in worst:
            worst[name] = max(worst[name], float(np.abs(got[name] - want[name]).max()))
            scale[name] = max(scale[name], float(np.abs(want[name]).max()))
    if not all(error <= TOLERANCE * scale[name] for name, error in worst.items()):
        raise EngineError(f"the exported graph differs from PyTorch: {worst}", hint="please report this with your config")
    return {
        "against": f"torch {torch.__version__}",
        "rows": len(chosen),
        "max_error": worst,
        "scale": scale,
        "tolerance": TOLERANCE,
    }


def _torch_outputs(trained: Trained, batch: Tensors) -> dict[str, Array]:
    with torch.no_grad():
        embedding, logits = trained.network(*(torch.from_numpy(batch[spec.name]) for spec in trained.inputs))
    return {EMBEDDING: embedding.numpy(), LOGITS: logits.numpy()}


def _golden(trained: Trained, rows: Sequence[Tensors]) -> dict[str, Array]:
    """Real rows with what PyTorch makes of them."""
    batch = collate([rows[int(index)] for index in np.linspace(0, len(rows) - 1, min(GOLDEN_ROWS, len(rows)))])
    return golden_arrays(batch, _torch_outputs(trained, batch))


def _judge(session: Session, rows: Sequence[Tensors], watch: Watch) -> Tensors:
    """Embedding and logits of all rows, batched by size."""
    order = np.argsort([sum(array.size for array in row.values()) for row in rows], kind="stable")
    parts: list[Tensors] = []
    for start in range(0, len(rows), _BATCH):
        watch.stage("judging", start, len(rows))
        parts.append(session.run(collate([rows[index] for index in order[start : start + _BATCH]])))
    back = np.argsort(order)
    return {name: np.concatenate([part[name] for part in parts])[back] for name in (EMBEDDING, LOGITS)}


def collate(rows: Sequence[Tensors]) -> Tensors:
    """Rows of one sample each as one batch, free axes padded with zeros to the longest."""
    batch: Tensors = {}
    for name in rows[0]:
        shape = np.max([row[name].shape[1:] for row in rows], axis=0)
        stacked = np.zeros((len(rows), *shape), rows[0][name].dtype)
        for index, row in enumerate(rows):
            place = stacked[index]
            place[tuple(slice(size) for size in row[name].shape[1:])] = row[name][0]
        batch[name] = stacked
    return batch


def _holdout(rows: Sequence[Tensors], labels: Array, embedding: Array) -> dict[str, Array]:
    return {**{f"inputs/{name}": array for name, array in collate(rows).items()}, "label": labels, "embedding": embedding}


def _replay(trained: Trained, *, seed: int) -> dict[str, Array]:
    kept = _spread_over_labels(trained.labels, REPLAY_ROWS, seed=seed)
    return {"embedding": trained.embedding[kept].astype(np.float32), "label": trained.labels[kept]}


def _spread_over_labels(labels: Array, most: int, *, seed: int) -> Array:
    """At most that many rows, every class with its share: a refitted head must not learn another balance of the classes."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_label = order[np.argsort(labels[order], kind="stable")]
    places = np.linspace(0, len(labels) - 1, min(most, len(labels))).round().astype(np.int64)
    return np.sort(by_label[places])


def _npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _lineage(
    corpus: Corpus, config: TrainConfig, trained: Trained, *, libraries: Mapping[str, str], temperature: float
) -> dict[str, Any]:
    return {
        "made_by": "train",
        "inferloop": version("inferloop"),
        "libraries": {**libraries, "torch": torch.__version__},
        "data": corpus.digests,
        "rows": {"train": len(corpus.train), "validation": len(corpus.validation), "holdout": len(corpus.holdout)},
        "source": config.source,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "facts": {**trained.facts, "temperature": temperature},
    }
