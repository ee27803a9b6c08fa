"""From output tensors to labels and scores: softmax, sigmoid, top-k, threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidBundle
from inferloop.data.transforms.operation import Operation


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The scores of a batch.

    Attributes:
        values: float32 [N, C].
        labels: the names of the C columns.
        keep: how many of the best `by_label` names; 0 for all.
        favored: a label that wins as soon as its score is above `above`, and never below; empty for none.
    """

    values: Array
    labels: tuple[str, ...]
    keep: int = 0
    favored: str = ""
    above: float = 0.0

    def __len__(self) -> int:
        return len(self.values)

    def top(self, row: int) -> tuple[str, float]:
        """The label of one row and its score."""
        best = int(self._best(self.values[row : row + 1])[0])
        return self.labels[best], float(self.values[row, best])

    def by_label(self, row: int) -> dict[str, float]:
        """All scores of one row by label, the best first; with `top_k` only the k best."""
        values = self.values[row]
        order = np.argsort(-values, kind="stable")[: self.keep or None]
        return dict(zip([self.labels[index] for index in order.tolist()], values[order].tolist(), strict=True))

    def best(self) -> Array:
        """The column of the label of every row, int64 [N]."""
        return self._best(self.values)

    def _best(self, values: Array) -> Array:
        plain: Array = np.argmax(values, axis=1)
        if not self.favored or len(self.labels) < 2:
            return plain
        column = self.labels.index(self.favored)
        others = values.copy()
        others[:, column] = -np.inf
        return np.where(values[:, column] > self.above, column, np.argmax(others, axis=1))


class Softmax(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Logits to probabilities that add up to 1."""

    takes: ClassVar[tuple[str, ...]] = ("scores",)

    def __call__(self, value: Scores) -> Scores:
        """See `Operation.__call__`."""
        shifted = value.values - value.values.max(axis=1, keepdims=True, initial=-np.inf)
        powers = np.exp(shifted)
        return replace(value, values=powers / powers.sum(axis=1, keepdims=True))


class Sigmoid(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Logits to independent probabilities; one logit with two labels becomes `[1 - p, p]`."""

    takes: ClassVar[tuple[str, ...]] = ("scores",)

    def __call__(self, value: Scores) -> Scores:
        """See `Operation.__call__`."""
        small = np.exp(-np.abs(value.values))
        return replace(value, values=np.where(value.values >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32))


class Identity(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The scores are what the model gives."""

    takes: ClassVar[tuple[str, ...]] = ("scores",)

    def __call__(self, value: Scores) -> Scores:
        """See `Operation.__call__`."""
        return value


class TopK(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Name only the k best labels."""

    takes: ClassVar[tuple[str, ...]] = ("scores",)

    k: Annotated[int, msgspec.Meta(ge=1)]

    def __call__(self, value: Scores) -> Scores:
        """See `Operation.__call__`."""
        return replace(value, keep=self.k)


class Threshold(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`label` wins as soon as its score is above `above`; otherwise the best of the others does."""

    takes: ClassVar[tuple[str, ...]] = ("scores",)

    label: str
    above: float

    def __call__(self, value: Scores) -> Scores:
        """See `Operation.__call__`."""
        return replace(value, favored=self.label, above=self.above)


def scorer(steps: tuple[Callable[[Scores], Scores], ...], labels: tuple[str, ...], output: str) -> Callable[[Array], Scores]:
    """The function from an output tensor [N], [N, 1] or [N, C] to Scores.

    Args:
        steps: bound operations, in order.
        labels: the classes; empty for columns named by number, or by the output where there is only one.
        output: the tensor's name, for messages.
    """

    def score(values: Array) -> Scores:
        flat = values.reshape(len(values), -1).astype(np.float32, copy=False)
        columns = flat.shape[1]
        scores = Scores(flat, labels or _numbered(columns, output))
        for step in steps:
            scores = step(scores)
        if columns == 1 and len(labels) == 2:
            scores = replace(scores, values=np.concatenate([1 - scores.values, scores.values], axis=1))
        if scores.values.shape[1] != len(scores.labels):
            raise InvalidBundle(f"output {output!r} has {columns} values a row, the bundle has {len(labels)} labels")
        return scores

    return score


def _numbered(columns: int, output: str) -> tuple[str, ...]:
    return (output,) if columns == 1 else tuple(str(index) for index in range(columns))
