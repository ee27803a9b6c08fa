"""A linear model on hashed word and character n-grams: the part of a text network that reads the exact words.

    ids, counts -> (1 + log count) * idf -> unit length -> @ weight        all of it inside the exported graph

Fitted by L-BFGS on the whole sparse matrix, without scipy or scikit-learn.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from inferloop.core.datatypes import Array
from inferloop.data.transforms.text import Ngrams

_TINY = 1e-6
_MEMORY = 6


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """Weighted n-grams of N texts as one matrix in CSR form, float32 [N, buckets]."""

    starts: Array
    ids: Array
    values: Array
    buckets: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def multiply(self, weight: Array) -> Array:
        """The matrix times `weight` [buckets, C] -> float32 [N, C]."""
        used, columns = np.unique(self.ids, return_inverse=True)
        matrix = _csr(self.starts, columns, self.values, (len(self), len(used)))
        return np.asarray((matrix @ torch.from_numpy(weight[used])).numpy())


def inverse_frequency(rows: Sequence[Ngrams], buckets: int) -> Array:
    """Smoothed inverse document frequency, float32 [buckets]; 0 for an n-gram that stands in fewer than 2 texts."""
    seen = np.bincount(np.concatenate([row.ids for row in rows]), minlength=buckets)
    idf = np.log((1.0 + len(rows)) / (1.0 + seen)) + 1.0
    return np.where(seen > 1, idf, 0.0).astype(np.float32)


def weigh(rows: Sequence[Ngrams], idf: Array) -> Sparse:
    """Counts -> the same numbers as `NgramFeatures` computes."""
    lengths = np.array([len(row.ids) for row in rows])
    ids = np.concatenate([row.ids for row in rows])
    values = (1.0 + np.log(np.concatenate([row.counts for row in rows]))) * idf[ids]
    index = np.repeat(np.arange(len(rows)), lengths)
    norms = np.sqrt(np.bincount(index, weights=values.astype(np.float64) ** 2, minlength=len(rows)))
    values = (values / np.maximum(norms, _TINY)[index]).astype(np.float32)
    kept = values != 0
    starts = np.concatenate([[0], np.cumsum(np.bincount(index[kept], minlength=len(rows)))])
    return Sparse(starts.astype(np.int64), ids[kept], values[kept], len(idf))


def fit_weights(matrix: Sparse, labels: Array, classes: int, *, c: float = 20.0, iterations: int = 60) -> tuple[Array, Array]:
    """Multinomial logistic regression, `c * sum of losses + |W|^2 / 2`.

    Returns:
        weight float32 [buckets, C] and bias float32 [C].
    """
    used, columns = np.unique(matrix.ids, return_inverse=True)
    forward = _csr(matrix.starts, columns, matrix.values, (len(matrix), len(used)))
    backward = _transposed(matrix, columns, len(used))
    weight, bias = torch.zeros(len(used), classes), torch.zeros(classes)
    truth = torch.from_numpy(labels)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=iterations, history_size=_MEMORY, line_search_fn="strong_wolfe")

    def closure() -> float:
        logits = (forward @ weight + bias).requires_grad_()
        with torch.enable_grad():
            loss = c * nn.functional.cross_entropy(logits, truth, reduction="sum")
            (slope,) = torch.autograd.grad(loss, logits)
        weight.grad = backward @ slope + weight
        bias.grad = slope.sum(0)
        return float(loss.detach() + 0.5 * (weight**2).sum())

    with torch.no_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it without types
    full = np.zeros((matrix.buckets, classes), np.float32)
    full[used] = weight.numpy()
    return full, bias.numpy()


class NgramFeatures(nn.Module):
    """Ids and counts -> a weighted sum of rows of a table.

    Args:
        idf: float32 [buckets].
        width: columns of the table.
    """

    idf: Tensor

    def __init__(self, idf: Array, width: int) -> None:
        super().__init__()
        self.register_buffer("idf", torch.from_numpy(idf))
        self.table = nn.Parameter(torch.zeros(len(idf), width))

    def forward(self, ids: Tensor, counts: Tensor) -> Tensor:
        """Ids int64 and counts float32 [N, K], 0 is padding -> [N, width]."""
        value = torch.where(counts > 0, 1.0 + torch.log(counts.clamp(min=1.0)), torch.zeros_like(counts)) * self.idf[ids]
        value = value / value.pow(2).sum(1, keepdim=True).sqrt().clamp(min=_TINY)
        return (self.table[ids] * value.unsqueeze(-1)).sum(1)


def _transposed(matrix: Sparse, columns: Array, width: int) -> Tensor:
    order = np.argsort(columns, kind="stable")
    rows = np.repeat(np.arange(len(matrix)), np.diff(matrix.starts))
    starts = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=width))]).astype(np.int64)
    return _csr(starts, rows[order], matrix.values[order], (width, len(matrix)))


def _csr(starts: Array, columns: Array, values: Array, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)  # torch calls CSR a beta at each use
        return torch.sparse_csr_tensor(
            torch.from_numpy(starts), torch.from_numpy(columns), torch.from_numpy(values), shape, check_invariants=False
        )
