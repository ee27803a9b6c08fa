"""The Report of a training: figures on the holdout, curves, the table by class, what was chosen."""

from __future__ import annotations

from typing import Any

import numpy as np

from inferloop.core.report import Plot, Report, Table
from inferloop.evaluation.calibration import ece, reliability, softmax
from inferloop.evaluation.intervals import wilson
from inferloop.evaluation.metrics import accuracy, class_table, macro_f1
from inferloop.training.config import TrainConfig
from inferloop.training.corpus import Corpus
from inferloop.training.network import Trained
from inferloop.training.packaging import Packaged

_KEPT = ("accuracy", "macro_f1", "ece", "majority_accuracy")


def report(trained: Trained, packaged: Packaged, corpus: Corpus, config: TrainConfig, *, wall_s: float, cpu_s: float) -> Report:
    """Judge the holdout; its rows were never looked at before."""
    truth, predicted = corpus.holdout.labels, packaged.logits.argmax(axis=1)
    right = int((truth == predicted).sum())
    low, high = wilson(right, len(truth))
    probabilities = softmax(packaged.logits)
    figures = {
        "accuracy": accuracy(truth, predicted),
        "macro_f1": macro_f1(truth, predicted, corpus.classes),
        "ece": ece(probabilities, truth),
        "majority_accuracy": float(np.mean(truth == np.bincount(corpus.train.labels).argmax())),
        "wall_s": wall_s,
        "cpu_s": cpu_s,
    }
    return Report(
        kind="train",
        title=f"{config.name}: {config.task}",
        figures=figures,
        facts=_facts(trained, packaged, corpus, config),
        tables=(class_table(truth, predicted, corpus.labels, title="holdout by class"), *_epochs(trained)),
        plots=(
            *_curves(trained),
            Plot("calibration on the holdout", "confidence", "accuracy", {"model": reliability(probabilities, truth)}),
        ),
        notes=(f"accuracy 95 % interval {low:.3f}-{high:.3f} on {len(truth)} rows", *_advice(figures), *trained.notes),
    )


def evaluation(result: Report) -> dict[str, float]:
    """The figures that the Bundle keeps."""
    return {name: result.figures[name] for name in _KEPT}


def _facts(trained: Trained, packaged: Packaged, corpus: Corpus, config: TrainConfig) -> dict[str, Any]:
    return {
        "model": config.name,
        "rows": {"train": len(corpus.train), "validation": len(corpus.validation), "holdout": len(corpus.holdout)},
        "dropped_rows": corpus.dropped,
        "classes": corpus.classes,
        "seed": config.seed,
        "temperature": packaged.temperature,
        "ece_before": packaged.ece[0],
        "ece_after": packaged.ece[1],
        "parity": dict(packaged.manifest.parity),
        **trained.facts,
    }


def _epochs(trained: Trained) -> tuple[Table, ...]:
    if trained.history is None:
        return ()
    columns = ("epoch", "training loss", "validation loss", "validation accuracy", "validation macro-F1", "seconds", "kept")
    rows = tuple(
        (number + 1, epoch.loss, *epoch.validation, epoch.seconds, "yes" if number == trained.history.best else "")
        for number, epoch in enumerate(trained.history.epochs)
    )
    return (Table("epochs", columns, rows),)


def _curves(trained: Trained) -> tuple[Plot, ...]:
    if trained.history is None:
        return ()
    epochs = list(enumerate(trained.history.epochs, start=1))
    loss = {
        "training": [(float(number), epoch.loss) for number, epoch in epochs],
        "validation": [(float(number), epoch.validation.loss) for number, epoch in epochs],
    }
    quality = {
        "accuracy": [(float(number), epoch.validation.accuracy) for number, epoch in epochs],
        "macro-F1": [(float(number), epoch.validation.macro_f1) for number, epoch in epochs],
    }
    return Plot("loss", "epoch", "nats", loss), Plot("validation", "epoch", "share", quality)


def _advice(figures: dict[str, float]) -> tuple[str, ...]:
    if figures["accuracy"] <= figures["majority_accuracy"]:
        return ("it is no better than always answering the most frequent class: look at labels and columns",)
    return ()
