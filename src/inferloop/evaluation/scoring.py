"""One model over one data set: every sample through the bundle's transforms and an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import msgspec
import numpy as np

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import InvalidInput, Unsupported
from inferloop.core.sample import Sample
from inferloop.core.target import Target
from inferloop.core.transform import FieldKind
from inferloop.data.datasets.dataset import Dataset
from inferloop.data.datasets.row import Example
from inferloop.data.transforms.executor import TransformExecutor
from inferloop.evaluation.latency import Latency, measure
from inferloop.evaluation.sessions import opened, run_rows

_CHUNK = 512
_TIMED = 200


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What a model says about a data set.

    Attributes:
        labels: the classes, in the order of the columns.
        values: scores [N, C].
        best: int64 [N], the column of the answer (a threshold may choose another than the largest).
        truth: the true label of every row.
        latency: one sample at a time, transforms included.
    """

    labels: tuple[str, ...]
    values: Array
    best: Array
    truth: tuple[str, ...]
    latency: Latency

    @property
    def are_probabilities(self) -> bool:
        """Whether the scores of every row are a distribution over the classes."""
        return bool(np.all(self.values >= 0) and np.allclose(self.values.sum(axis=1), 1.0, atol=1e-3))


def score(bundle: Bundle, dataset: Dataset, *, target: Target | None = None) -> Scored:
    """Run a model over every row of a data set.

    Raises:
        InvalidInput: no rows, no labels in common, a field is missing, or a sample cannot be read; names the row.
        Unsupported: the bundle declares no transforms or no scores.
    """
    _check_labels(bundle, dataset)
    executor = TransformExecutor(bundle)
    rename = _renaming(executor.signature_fields, dataset)
    output = _score_output(bundle)
    values: list[Array] = []
    best: list[Array] = []
    truth: list[str] = []
    timed: list[Sample] = []
    with opened(bundle, target) as session:
        for start, examples in _chunks(dataset):
            samples = [_renamed(example.sample, rename) for example in examples]
            rows = [_tensors(executor, sample, start + index) for index, sample in enumerate(samples)]
            scores = executor.scores(run_rows(session, rows, [output]))
            values.append(scores.values)
            best.append(scores.best())
            truth += [example.label for example in examples]
            timed += samples[: max(0, _TIMED - len(timed))]
        latency = measure(lambda sample: executor.scores(session.run(executor.apply(sample))), timed, calls=_TIMED)
    return Scored(bundle.labels, np.concatenate(values), np.concatenate(best).astype(np.int64), tuple(truth), latency)


def _chunks(examples: Iterable[Example]) -> Iterator[tuple[int, list[Example]]]:
    remaining, start = iter(examples), 0
    while part := list(islice(remaining, _CHUNK)):
        yield start, part
        start += len(part)


def _tensors(executor: TransformExecutor, sample: Sample, row: int) -> Tensors:
    try:
        return executor.apply(sample)
    except InvalidInput as error:
        raise InvalidInput(f"row {row + 1} of the data set: {error.message}", hint=error.hint) from error


def _check_labels(bundle: Bundle, dataset: Dataset) -> None:
    if len(dataset) == 0:
        raise InvalidInput(f"data set {dataset.name!r} has no rows")
    if not bundle.labels:
        raise Unsupported(f"model {bundle.name!r} has no labels to compare with")
    if not set(dataset.labels) & set(bundle.labels):
        found, known = (", ".join(list(labels)[:8]) for labels in (dataset.labels, bundle.labels))
        raise InvalidInput(
            f"data set {dataset.name!r} and model {bundle.name!r} have no label in common",
            hint=f"the data set has: {found}; the model knows: {known}",
        )


def _score_output(bundle: Bundle) -> str:
    if not bundle.manifest.transforms.outputs:
        raise Unsupported(f"model {bundle.name!r} does not declare which output holds its scores")
    return bundle.manifest.transforms.outputs[0].output


def _renaming(wanted: Mapping[str, FieldKind], dataset: Dataset) -> dict[str, str]:
    """The model's field by the data set's field, where both have one field of the same kind under other names."""
    missing = [name for name in wanted if name not in dataset.fields]
    if not missing:
        return {}
    if len(wanted) == len(dataset.fields) == 1:
        (theirs, kind), (ours, needed) = next(iter(dataset.fields.items())), next(iter(wanted.items()))
        if kind is needed:
            return {theirs: ours}
    raise InvalidInput(
        f"data set {dataset.name!r} has no field {missing[0]!r}, which the model reads",
        hint=f"it has: {', '.join(dataset.fields)}; name the column of {missing[0]!r}",
    )


def _renamed(sample: Sample, rename: Mapping[str, str]) -> Sample:
    if not rename:
        return sample
    return msgspec.structs.replace(sample, fields={rename.get(name, name): value for name, value in sample.fields.items()})
