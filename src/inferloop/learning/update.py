"""A new head on the frozen embedding: champion + replay rows + labeled rows -> challenger. numpy, onnx and an engine alone.

    replay.npz (rows with the training set's class shares) ─┐
                                                            ├─ cross-validated C and temperature ─ fit ─ two new initializers
    labeled ledger rows, the fitting side ──────────────────┘

Regularization pulls towards the champion's head, not towards zero: what few rows cannot say stays as it was learned from
the whole training set. The same champion, rows, config and seed give the same bytes. Feedback rows never enter the
challenger's files, so that erasing someone from the ledger erases him here too.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from inferloop.core.bundle import GOLDEN, MODEL, REPLAY, Bundle, golden_arrays
from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidBundle, InvalidInput
from inferloop.core.manifest import Manifest
from inferloop.core.target import Target
from inferloop.evaluation.calibration import log_loss
from inferloop.evaluation.head import CrossValidation, LinearHead, cross_validate, fit_head
from inferloop.evaluation.sessions import opened
from inferloop.learning.head_model import backbone_digest, read_head, with_head
from inferloop.learning.rows import EmbeddedRows


@dataclass(frozen=True, slots=True)
class UpdateConfig:
    """How a head is refitted.

    Attributes:
        c_grid: inverse strengths of the pull towards the champion's head, to choose from by cross-validation.
        folds: of the cross-validation.
        class_weight: `balanced` lifts rare classes among all rows.
        most_feedback_weight: feedback counts as much as replay in sum, but no row more than this.
        seed: of the folds.
    """

    c_grid: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)
    folds: int = 3
    class_weight: Literal["balanced"] | None = None
    most_feedback_weight: float = 5.0
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """A challenger and what was measured while it was made.

    Attributes:
        challenger: not registered yet.
        figures: C, temperature, rows, log loss by out-of-fold rows.
        losses: calibrated out-of-fold log loss by C.
    """

    challenger: Bundle
    figures: Mapping[str, float]
    losses: Mapping[float, float]


def refit(champion: Bundle, rows: EmbeddedRows, path: Path, *, config: UpdateConfig | None = None) -> Update:
    """Fit a new head and write the challenger.

    Args:
        champion: a bundle with a head and `reference/replay.npz`.
        rows: labeled rows that may be fitted; at least one.
        path: where the challenger's directory will stand.
        config: how.

    Raises:
        InvalidInput: no rows, or their embedding is not the champion's.
        Unsupported: the champion declares no head.
        InvalidBundle: its head or replay rows are not what the manifest says.
    """
    chosen = config or UpdateConfig()
    old = read_head(champion)
    if len(rows) == 0 or rows.embedding.shape[1] != old.weight.shape[0]:
        raise InvalidInput(f"{len(rows)} labeled rows of width {rows.embedding.shape[1]}, the head reads {old.weight.shape[0]}")
    x, y, weights = _training_rows(champion, rows, old, chosen)
    classes = len(champion.labels)
    found = cross_validate(
        x,
        y,
        classes,
        grid=chosen.c_grid,
        folds=chosen.folds,
        class_weight=chosen.class_weight,
        sample_weight=weights,
        prior=old,
        seed=chosen.seed,
    )
    fitted = fit_head(x, y, classes, c=found.c, class_weight=chosen.class_weight, sample_weight=weights, prior=old)
    head = fitted.scaled(found.temperature)
    figures = _figures(found, rows=rows, old=old, y=y)
    manifest = _manifest(champion, rows, config=chosen, figures=figures)
    return Update(_write(champion, head, path, manifest=manifest), figures, found.losses)


def _training_rows(champion: Bundle, rows: EmbeddedRows, old: LinearHead, config: UpdateConfig) -> tuple[Array, Array, Array]:
    replay = champion.arrays(REPLAY)
    embedding, label = replay.get("embedding"), replay.get("label")
    if embedding is None or label is None or embedding.shape != (len(label), old.weight.shape[0]):
        raise InvalidBundle(f"bundle {champion.path}: {REPLAY} does not hold embedding [N, {old.weight.shape[0]}] and label [N]")
    weight = min(config.most_feedback_weight, max(1.0, len(label) / len(rows)))
    return (
        np.concatenate([embedding, rows.embedding]).astype(np.float64),
        np.concatenate([label, rows.label]).astype(np.int64),
        np.concatenate([np.ones(len(label)), np.full(len(rows), weight)]),
    )


def _figures(found: CrossValidation, *, rows: EmbeddedRows, old: LinearHead, y: Array) -> dict[str, float]:
    logits = found.logits[-len(rows) :] / found.temperature
    return {
        "c": found.c,
        "temperature": found.temperature,
        "feedback_rows": len(rows),
        "replay_rows": len(y) - len(rows),
        "feedback_log_loss_before": log_loss(old.logits(rows.embedding), rows.label),
        "feedback_log_loss_out_of_fold": log_loss(logits, rows.label),
        "feedback_accuracy_before": float(np.mean(old.logits(rows.embedding).argmax(axis=1) == rows.label)),
        "feedback_accuracy_out_of_fold": float(np.mean(logits.argmax(axis=1) == rows.label)),
    }


def _manifest(champion: Bundle, rows: EmbeddedRows, *, config: UpdateConfig, figures: Mapping[str, float]) -> Manifest:
    before = champion.manifest.lineage
    lineage: dict[str, Any] = {
        "parent": champion.manifest.digest,
        "parent_version": champion.version,
        "made_by": "refit of the head",
        "rows": rows.digest,
        "config": msgspec.json.decode(msgspec.json.encode(config)),
        "seed": config.seed,
        "backbone": backbone_digest(champion),
        "origin": before.get("origin", dict(before)),
    }
    return replace(champion.manifest, version=0, digest="", created="", lineage=lineage, evaluation={"refit": dict(figures)})


def _write(champion: Bundle, head: LinearHead, path: Path, *, manifest: Manifest) -> Bundle:
    files: dict[str, bytes | Path] = {
        name: champion.path / name for name in champion.manifest.files if not name.startswith("variants/")
    }
    model = with_head(champion, head)
    files[MODEL] = model
    files[GOLDEN] = _golden(champion, manifest, model)
    challenger = Bundle.write(path, manifest, files)
    read_head(challenger)
    return challenger


def _golden(champion: Bundle, manifest: Manifest, model: bytes) -> bytes:
    """The champion's golden inputs with the outputs of the new model."""
    inputs = {key.removeprefix("inputs/"): array for key, array in champion.arrays(GOLDEN).items() if key.startswith("inputs/")}
    with tempfile.TemporaryDirectory(prefix="inferloop-refit-") as folder:
        (Path(folder) / MODEL).write_bytes(model)
        with opened(Bundle(Path(folder), manifest), Target()) as session:
            outputs = session.run(inputs)
    stream = io.BytesIO()
    np.savez(stream, **golden_arrays(inputs, outputs))  # type: ignore[arg-type]  # numpy types the flags, these are arrays
    return stream.getvalue()
