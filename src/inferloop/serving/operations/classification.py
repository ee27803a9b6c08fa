"""The extension `classification`: the best classes of an output, as texts `VALUE:INDEX[:LABEL]`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inferloop.core.datatypes import Array, DataType
from inferloop.core.errors import InvalidInput


def classify(name: str, array: Array, count: int, *, batched: bool, labels: Sequence[str] = ()) -> Array:
    """The `count` largest elements, largest first; of equal ones the first, and NaN last.

    Args:
        name: of the output, for messages.
        array: numbers; `[N, ...]` if `batched`, where each row is ranked for itself.
        count: how many; all if there are fewer.
        batched: whether axis 0 is the batch.
        labels: a name for each element of a row; left out of the texts if their number is another.

    Returns:
        BYTES, `[N, count]`, or `[count]` for an output without a batch axis: an object array of `bytes`. Floats have six
        decimals.

    Raises:
        InvalidInput: the output holds no numbers, or `count` is below 1.
    """
    if array.dtype.kind not in "iuf":
        raise InvalidInput(f"output {name!r} is {DataType.of(array)}, classification ranks numbers")
    if count < 1:
        raise InvalidInput(f"output {name!r}: classification must be at least 1, got {count}")
    rows = array.reshape(len(array), -1) if batched else array.reshape(1, -1)
    taken = min(count, rows.shape[1])
    names = labels if len(labels) == rows.shape[1] else ()
    texts: Array = np.empty((len(rows), taken), dtype=object)
    for place, row in enumerate(rows):
        best = _best(row, taken)
        texts[place, :] = [_text(row[index], int(index), names) for index in best]
    return texts if batched else texts[0]


def _best(row: Array, count: int) -> Array:
    """The indices of the largest elements."""
    if row.dtype.kind == "f":
        keys = np.where(np.isnan(row), np.inf, -row.astype(np.float64))
        order: Array = np.argsort(keys, kind="stable")
    else:
        order = len(row) - 1 - np.argsort(row[::-1], kind="stable")[::-1]
    return order[:count]


def _text(value: np.generic, index: int, labels: Sequence[str]) -> bytes:
    number = f"{float(value):f}" if value.dtype.kind == "f" else str(int(value))
    return f"{number}:{index}:{labels[index]}".encode() if labels else f"{number}:{index}".encode()
