"""Multinomial logistic regression in numpy: the linear head of a network, fitted on its embedding.

    minimize  C * sum_i weight_i * loss_i(W, b)  +  |W|^2 / 2        (the bias is free)

with L-BFGS. The optimum is the same as that of scikit-learn's `LogisticRegression(C=C)`. Two things make it fast without
moving the optimum: features are centered (the free bias takes up the shift), and L-BFGS starts from the inverse of a fixed
bound on the Hessian instead of from the identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput
from inferloop.evaluation.calibration import fit_temperature, log_loss
from inferloop.evaluation.logistic import Design, Problem, minimize

ClassWeight = Literal["balanced"] | Mapping[int, float] | None
C_GRID = (0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """`logits = x @ weight + bias`; weight float64 [D, C], bias float64 [C]."""

    weight: Array
    bias: Array

    def logits(self, x: Array) -> Array:
        """Float64 [N, C]."""
        return np.asarray(np.asarray(x, np.float64) @ self.weight + self.bias)

    def scaled(self, temperature: float) -> LinearHead:
        """The head with a temperature folded in: its logits are divided by it."""
        return LinearHead(self.weight / temperature, self.bias / temperature)


@dataclass(frozen=True, slots=True, eq=False)
class CrossValidation:
    """What choosing C by cross-validation found.

    Attributes:
        c: the value with the smallest log loss after calibration.
        temperature: fitted on the out-of-fold logits of that value.
        losses: calibrated out-of-fold log loss by C.
        logits: out-of-fold logits of the chosen C, float64 [N, C], not yet divided by the temperature.
    """

    c: float
    temperature: float
    losses: Mapping[float, float]
    logits: Array


def fit_head(
    x: Array,
    y: Array,
    classes: int,
    *,
    c: float = 1.0,
    class_weight: ClassWeight = None,
    sample_weight: Array | None = None,
    init: LinearHead | None = None,
    prior: LinearHead | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 500,
) -> LinearHead:
    """Fit a linear head.

    Args:
        x: embeddings [N, D].
        y: int64 [N], each 0..classes-1; a class without rows gets a head that never wins.
        classes: the number of classes, at least 2.
        c: inverse regularization strength, as scikit-learn's C.
        class_weight: `balanced` weights classes inversely to their rows.
        sample_weight: [N], not negative; multiplies the class weight.
        init: where to start, e.g. the head in use; changes the time, not the result.
        prior: what regularization pulls towards instead of zero; the smaller C, the closer the result stays to it.
        tolerance: stop when the expected gain in mean loss is below its square.
        max_iterations: of L-BFGS.

    Raises:
        InvalidInput: shapes, labels or weights do not fit, or x is not finite.
    """
    weights = _checked_weights(x, y, classes, class_weight=class_weight, sample_weight=sample_weight)
    _check_strength(c)
    _check_shape(init, x, classes)
    _check_shape(prior, x, classes)
    design = Design.of(x, y, classes, weights=weights, offset=None if prior is None else prior.logits(x))
    return _fit(design, c, init=init, prior=prior, tolerance=tolerance, max_iterations=max_iterations)


def cross_validate(
    x: Array,
    y: Array,
    classes: int,
    *,
    grid: Sequence[float] = C_GRID,
    folds: int = 4,
    class_weight: ClassWeight = None,
    sample_weight: Array | None = None,
    prior: LinearHead | None = None,
    seed: int = 0,
) -> CrossValidation:
    """Choose C and the temperature from logits of rows that were held out; folds are stratified and fixed by `seed`."""
    _check_shape(prior, x, classes)
    for c in grid:
        _check_strength(c)
    weights = _checked_weights(x, y, classes, class_weight=class_weight, sample_weight=sample_weight)
    assigned = _folds(y, folds, seed=seed)
    logits = {c: np.zeros((len(y), classes)) for c in sorted(grid)}
    for fold in range(folds):
        fit, held = assigned != fold, assigned == fold
        offset = None if prior is None else prior.logits(x[fit])
        design = Design.of(x[fit], y[fit], classes, weights=weights[fit], offset=offset)
        warm = prior
        for c, table in logits.items():
            warm = _fit(design, c, init=warm, prior=prior, tolerance=1e-3, max_iterations=500)
            table[held] = warm.logits(x[held])
    temperatures = {c: fit_temperature(table, y, weights=sample_weight) for c, table in logits.items()}
    losses = {c: log_loss(table / temperatures[c], y, weights=sample_weight) for c, table in logits.items()}
    best = min(losses, key=lambda c: losses[c])
    return CrossValidation(best, temperatures[best], losses, logits[best])


def choose_c(x: Array, y: Array, classes: int, *, grid: Sequence[float] = C_GRID, folds: int = 4, seed: int = 0) -> float:
    """The C of `grid` with the smallest calibrated out-of-fold log loss."""
    return cross_validate(x, y, classes, grid=grid, folds=folds, seed=seed).c


def _fit(
    design: Design, c: float, *, init: LinearHead | None, prior: LinearHead | None, tolerance: float, max_iterations: int
) -> LinearHead:
    base = prior or LinearHead(np.zeros((design.x.shape[1], design.classes)), np.zeros(design.classes))
    weight, bias = (base.weight, base.bias) if init is None else (init.weight, init.bias)
    moved, shift = weight - base.weight, bias - base.bias
    start = np.vstack([moved, shift + design.mean @ moved]).astype(np.float64)
    found = minimize(Problem.of(design, c), start, tolerance=tolerance, max_iterations=max_iterations)
    moved = found[:-1]
    weight, bias = base.weight + moved, base.bias + found[-1] - design.mean @ moved
    return LinearHead(weight - weight.mean(axis=1, keepdims=True), bias - bias.mean())


def _check_shape(head: LinearHead | None, x: Array, classes: int) -> None:
    if head is not None and head.weight.shape != (x.shape[1], classes):
        raise InvalidInput(f"the given head is {list(head.weight.shape)}, the rows need {[x.shape[1], classes]}")


def _check_strength(c: float) -> None:
    if not c > 0:
        raise InvalidInput(f"C is {c}, it must be above 0")


def _folds(y: Array, folds: int, *, seed: int) -> Array:
    """A fold for every row, the rows of each class dealt out evenly in a random order; int64 [N]."""
    if folds < 2 or len(y) < folds:
        raise InvalidInput(f"{len(y)} rows cannot be split into {folds} folds", hint="at least 2 folds and a row in each")
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    assigned = np.empty(len(y), np.int64)
    assigned[order] = np.arange(len(y)) % folds
    return assigned


def _checked_weights(x: Array, y: Array, classes: int, *, class_weight: ClassWeight, sample_weight: Array | None) -> Array:
    if x.ndim != 2 or y.shape != x.shape[:1] or len(y) == 0:
        raise InvalidInput(f"embeddings have shape {list(x.shape)}, labels {list(y.shape)}; they need [N, D] and [N], N >= 1")
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= classes or classes < 2:
        raise InvalidInput(f"labels must be 0..{classes - 1} of at least 2 classes, got {y.dtype} up to {y.max()}")
    if not np.isfinite(x).all():
        raise InvalidInput("an embedding is not finite", hint="a NaN or infinity came out of the network")
    weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if weights.shape != y.shape or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
        raise InvalidInput(f"sample weights need shape [{len(y)}], none negative and not all zero")
    if class_weight == "balanced":
        counts = np.bincount(y, minlength=classes)
        weights = weights * (len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[y]
    elif class_weight is not None:
        by_class = np.array([class_weight.get(index, 1.0) for index in range(classes)])
        weights = weights * by_class[y]
    return weights
