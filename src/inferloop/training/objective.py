"""What every learner shares: the loss with its weights, the verdict on validation rows, batches by length, the precision."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inferloop.core.datatypes import Array
from inferloop.evaluation.calibration import log_loss
from inferloop.evaluation.metrics import accuracy, macro_f1
from inferloop.training.config import TrainConfig
from inferloop.training.corpus import Corpus
from inferloop.training.loop import Validation

_WINDOW = 20


class Objective:
    """Cross-entropy with label smoothing, class weights and row weights.

    Args:
        labels: int64 [N] of the training rows.
        weights: float32 [N] of the rows.
        classes: their number.
        smoothing: share of the target that is spread over all classes.
        balanced: weight classes inversely to their rows.
    """

    def __init__(self, labels: Array, weights: Array, classes: int, *, smoothing: float, balanced: bool) -> None:
        factors = weights / weights.mean()
        if balanced:
            factors = factors * balance(labels, classes)[labels]
        self._labels = torch.from_numpy(labels)
        self._factors = torch.from_numpy(factors.astype(np.float32))
        self._smoothing = smoothing

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """The weighted mean loss of the batch `rows`; logits [N, C] in the same order."""
        losses = functional.cross_entropy(logits, self._labels[rows], label_smoothing=self._smoothing, reduction="none")
        return (losses * self._factors[rows]).mean()


def objective_of(corpus: Corpus, config: TrainConfig) -> Objective:
    """The loss of the training rows as the config wants it."""
    train, fitting = corpus.train, config.fit
    balanced = fitting.class_weights == "balanced"
    return Objective(train.labels, train.weights, corpus.classes, smoothing=fitting.label_smoothing, balanced=balanced)


def balance(labels: Array, classes: int) -> Array:
    """A weight for each class, inverse to its rows; mean 1 over the rows."""
    counts = np.bincount(labels, minlength=classes)
    return np.asarray(len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)))


def judge(logits: Array, labels: Array) -> Validation:
    """Loss, accuracy and macro-F1 of logits [N, C]."""
    predicted = logits.argmax(axis=1)
    return Validation(log_loss(logits, labels), accuracy(labels, predicted), macro_f1(labels, predicted, logits.shape[1]))


def shuffled(rows: int, batch: int, random: torch.Generator) -> list[Tensor]:
    """All rows once in a random order; a last batch of a single row joins the one before, since batch norm needs two."""
    batches = list(torch.split(torch.randperm(rows, generator=random), batch))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def bucketed(lengths: Tensor, batch: int, random: torch.Generator) -> list[Tensor]:
    """Random batches of rows of similar length, in random order: sorted within windows of 20 batches."""
    batches: list[Tensor] = []
    for window in torch.split(torch.randperm(len(lengths), generator=random), batch * _WINDOW):
        batches.extend(torch.split(window[torch.argsort(lengths[window], stable=True)], batch))
    return [batches[int(index)] for index in torch.randperm(len(batches), generator=random)]


def by_length(lengths: Tensor, batch: int) -> list[Tensor]:
    """All rows in batches of similar length, longest last."""
    return list(torch.split(torch.argsort(lengths, stable=True), batch))


def step_type(precision: Literal["auto", "f32", "bf16"]) -> torch.dtype:
    """The type of training arithmetic. `auto` is bf16 only where the CPU computes it; elsewhere it is emulated and slow.

    It depends on the machine, never on a measurement: a training that is resumed must not change its arithmetic.
    """
    if precision == "auto":
        able = torch.cpu.get_capabilities()
        return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16") else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32
