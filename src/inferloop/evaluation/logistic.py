"""The optimizer of the head fit: L-BFGS on the multinomial logistic loss, started from a bound on its Hessian.

A `Design` holds what depends on the rows alone, so that fits with several regularization strengths share it.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from inferloop.core.datatypes import Array

_MEMORY = 12
_WIDEST_PRECONDITIONER = 2048


class Design(NamedTuple):
    """Weighted, centered rows and the eigenvectors of their covariance.

    Attributes:
        x: float64 [N, D], minus `mean`.
        y: int64 [N].
        share: [N], the weight of each row; they add up to 1.
        total: what the weights added up to before.
        mean: [D].
        spread: [D], variances along the basis.
        basis: [D, D], columns are eigenvectors; None for wide rows, whose variances are along the features.
        offset: [N, C], added to the logits; None for nothing.
    """

    x: Array
    y: Array
    classes: int
    share: Array
    total: float
    mean: Array
    spread: Array
    basis: Array | None
    offset: Array | None

    @classmethod
    def of(cls, x: Array, y: Array, classes: int, *, weights: Array, offset: Array | None = None) -> Design:
        """Prepare rows for any number of fits."""
        total = float(weights.sum())
        share = weights / total
        wide = np.asarray(x, np.float64)
        mean = share @ wide
        centered = wide - mean
        if wide.shape[1] <= _WIDEST_PRECONDITIONER:
            values, basis = np.linalg.eigh((centered * share[:, None]).T @ centered)
            return cls(centered, y, classes, share, total, mean, np.maximum(values, 0.0), basis, offset)
        return cls(centered, y, classes, share, total, mean, share @ centered**2, None, offset)


class Problem(NamedTuple):
    """Mean loss and its gradient for one regularization; parameters are [D + 1, C], the last row is the bias."""

    design: Design
    ridge: float
    curvature: Array

    @classmethod
    def of(cls, design: Design, c: float) -> Problem:
        """The problem for one C."""
        # A softmax over two classes has two mirrored vectors where the usual form has one of twice their length.
        ridge = (2.0 if design.classes == 2 else 1.0) / (c * design.total)
        typical = (1.0 - 1.0 / design.classes) / design.classes
        return cls(design, ridge, np.append(typical * design.spread + ridge, typical)[:, None])

    def loss(self, parameters: Array) -> tuple[float, Array]:
        """The value and the gradient."""
        x, y, share = self.design.x, self.design.y, self.design.share
        rows = np.arange(len(y))
        weight, bias = parameters[:-1], parameters[-1]
        logits = x @ weight + bias
        if self.design.offset is not None:
            logits += self.design.offset
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[rows, y].copy()
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1)
        value = float(share @ (np.log(sums) - own)) + 0.5 * self.ridge * float(np.vdot(weight, weight))
        logits *= (share / sums)[:, None]
        logits[rows, y] -= share
        return value, np.vstack([x.T @ logits + self.ridge * weight, logits.sum(axis=0)])

    def precondition(self, gradient: Array) -> Array:
        """Divide by the bound on the curvature, in its eigenbasis."""
        basis = self.design.basis
        if basis is None:
            return np.asarray(gradient / self.curvature)
        rotated = np.vstack([basis.T @ gradient[:-1], gradient[-1:]]) / self.curvature
        return np.vstack([basis @ rotated[:-1], rotated[-1:]])


def minimize(problem: Problem, parameters: Array, *, tolerance: float, max_iterations: int) -> Array:
    """L-BFGS with backtracking; the problem is convex, so every accepted step keeps its curvature positive."""
    value, gradient = problem.loss(parameters)
    history: deque[tuple[Array, Array, float]] = deque(maxlen=_MEMORY)
    for _ in range(max_iterations):
        direction = -_two_loop(problem, gradient, history)
        slope = float(np.vdot(gradient, direction))
        if -slope <= tolerance**2:
            break
        step, (new_value, new_gradient) = _line_search(problem, parameters, direction, value=value, slope=slope)
        if step == 0.0:
            break
        moved, change = step * direction, new_gradient - gradient
        curvature = float(np.vdot(moved, change))
        if curvature > 0.0:
            history.append((moved, change, curvature))
        parameters, value, gradient = parameters + moved, new_value, new_gradient
    return parameters


def _two_loop(problem: Problem, gradient: Array, history: deque[tuple[Array, Array, float]]) -> Array:
    """The product of the inverse Hessian's estimate with the gradient."""
    q = gradient.copy()
    alphas = []
    for moved, change, curvature in reversed(history):
        alpha = float(np.vdot(moved, q)) / curvature
        alphas.append(alpha)
        q -= alpha * change
    r = problem.precondition(q)
    if history:
        _, change, curvature = history[-1]
        r *= curvature / float(np.vdot(change, problem.precondition(change)))
    for (moved, change, curvature), alpha in zip(history, reversed(alphas), strict=True):
        r += moved * (alpha - float(np.vdot(change, r)) / curvature)
    return r


def _line_search(
    problem: Problem, parameters: Array, direction: Array, *, value: float, slope: float
) -> tuple[float, tuple[float, Array]]:
    """The first step that lowers the loss enough, halving by the parabola through what is known; 0 if none does."""
    step = 1.0
    for _ in range(30):
        trial = problem.loss(parameters + step * direction)
        if trial[0] <= value + 1e-4 * step * slope:
            return step, trial
        parabola = -slope * step * step / (2.0 * (trial[0] - value - slope * step))
        step = min(max(parabola, 0.1 * step), 0.5 * step)
    return 0.0, (value, np.zeros_like(parameters))
