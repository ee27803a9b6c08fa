"""Many rows through one Session: opened by Target, run in batches of equal shape, never padded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from inferloop.core import plugins
from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import InvalidInput
from inferloop.core.protocols import Session
from inferloop.core.target import Target


@contextmanager
def opened(bundle: Bundle, target: Target | None = None) -> Iterator[Session]:
    """A Session of the bundle on `target` (onnxruntime on the CPU by default), closed at the end."""
    chosen = target or Target()
    session: Session = plugins.load("engines", chosen.engine)().load(bundle, chosen)
    try:
        yield session
    finally:
        session.close()


def run_rows(session: Session, rows: Sequence[Tensors], names: Sequence[str], *, batch: int = 32) -> dict[str, Array]:
    """Run single rows in batches and return the named outputs in the order of the rows.

    Args:
        session: of one thread.
        rows: inputs with axis 0 of length 1; rows of different shapes go into different batches.
        names: the outputs to keep; their rows must all have one shape.
        batch: rows of one run; 1 where the model has no batch axis.

    Raises:
        InvalidInput: there are no rows, or an output differs in shape from row to row.
    """
    if not rows:
        raise InvalidInput("there are no rows to run")
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[tuple((name, row[name].shape[1:]) for name in sorted(row))].append(index)
    size = batch if session.signature.batched else 1
    found: dict[str, list[Array | None]] = {name: [None] * len(rows) for name in names}
    for indices in groups.values():
        for part in _chunks(indices, size):
            outputs = session.run(_joined([rows[index] for index in part]))
            for name in names:
                for index, value in zip(part, outputs[name], strict=True):
                    found[name][index] = value
    return {name: _stacked(name, values) for name, values in found.items()}


def run_padded(session: Session, inputs: Tensors, names: Sequence[str], *, batch: int = 32) -> dict[str, Array]:
    """Run stored rows that were padded with zeros to common free axes, each batch cut back to what its rows need.

    The cut is right by the padding rule: zeros at the end of a free axis never change an answer of such a model.
    """
    axes = _free_second_axes(session, inputs)
    lengths = {size: _lengths([inputs[name] for name in names_of]) for size, names_of in axes.items()}
    total = len(next(iter(inputs.values())))
    order = np.argsort(sum(lengths.values(), np.zeros(total)), kind="stable")
    parts: dict[str, list[Array]] = {name: [] for name in names}
    for part in _chunks(order.tolist(), batch):
        cut = {name: array[part] for name, array in inputs.items()}
        for size, names_of in axes.items():
            longest = max(1, int(lengths[size][part].max()))
            cut.update({name: cut[name][:, :longest] for name in names_of})
        outputs = session.run(cut)
        for name in names:
            parts[name].append(outputs[name])
    back = np.argsort(order, kind="stable")
    return {name: np.concatenate(values)[back] for name, values in parts.items()}


def _free_second_axes(session: Session, inputs: Mapping[str, Array]) -> dict[int, list[str]]:
    """Inputs whose axis 1 is free, by its stored length: those that share an axis were padded to the same length."""
    axes: dict[int, list[str]] = defaultdict(list)
    for spec in session.signature.inputs:
        if len(spec.shape) > 1 and spec.shape[1] is None:
            axes[inputs[spec.name].shape[1]].append(spec.name)
    return axes


def _lengths(arrays: Sequence[Array]) -> Array:
    """By row, how much of axis 1 holds anything but zeros in any of the arrays."""
    used = np.any([np.any(array.reshape(*array.shape[:2], -1) != 0, axis=2) for array in arrays], axis=0)
    return np.where(used.any(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1), 0)


def _chunks(indices: Sequence[int], size: int) -> Iterable[list[int]]:
    return (list(indices[start : start + size]) for start in range(0, len(indices), size))


def _joined(rows: Sequence[Tensors]) -> Tensors:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _stacked(name: str, values: Sequence[Array | None]) -> Array:
    arrays = [value for value in values if value is not None]
    if len({array.shape for array in arrays}) != 1:
        raise InvalidInput(f"output {name!r} has another shape from row to row", hint="evaluation needs one score per label")
    return np.stack(arrays)
