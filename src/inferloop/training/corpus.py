"""The rows of one training: checked, split, labels as numbers.

train        the network learns from them
validation   they choose (epoch, C, n-grams) and calibrate; no weight below the head learns from them
holdout      nobody looks at them before the end; they go into the Bundle to judge later updates
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput
from inferloop.core.sample import Sample
from inferloop.data.datasets.dataset import Dataset
from inferloop.training.config import TrainConfig

_FEWEST = 3


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Some rows: samples in order, labels int64 [N], weights float32 [N]."""

    samples: tuple[Sample, ...]
    field: str
    labels: Array
    weights: Array

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def texts(self) -> list[str]:
        """The texts, where the field is one."""
        return [str(sample.fields[self.field]) for sample in self.samples]


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """All rows of a training and what was done to get them.

    Attributes:
        labels: the classes in the order of their numbers.
        digests: of the data sets, by role.
        dropped: rows that repeated another, or stood in the test too.
    """

    train: Rows
    validation: Rows
    holdout: Rows
    labels: tuple[str, ...]
    digests: dict[str, str]
    dropped: int = 0

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.labels)


def build(config: TrainConfig, dataset: Dataset, test: Dataset | None = None) -> Corpus:
    """Check and split.

    Args:
        config: shares, new names of labels, seed.
        dataset: rows to learn from; where it declares groups, no group stands on two sides of a split.
        test: becomes the holdout; without it a share of `dataset` does. Rows of `dataset` that occur in it are left out.

    Raises:
        InvalidInput: no rows, a single class, a class with too few rows to learn and to validate, or a class that only the
            test has.
    """
    _check_names(config, dataset, test)
    whole = _renamed(dataset, config)
    usable = whole.dedupe() if config.split.dedupe else whole
    _check_classes(usable)
    if test is None:
        rest, holdout = _split(usable, config.split.holdout, seed=config.seed)
    else:
        holdout = _renamed(test, config)
        rest = usable.without(holdout) if config.split.dedupe else usable
        _check_classes(rest)
    train, validation = _split(rest, config.split.validation, seed=config.seed + 1)
    lacking = sorted({*rest.labels} - {*train.labels})
    if lacking:
        raise InvalidInput(f"no group with class {lacking[0]!r} fell to the training rows", hint="add groups, or change the seed")
    digests = {"train": dataset.digest} | ({"test": test.digest} if test is not None else {})
    return Corpus(
        train=_rows(train, config.field, train.labels),
        validation=_rows(validation, config.field, train.labels),
        holdout=_rows(holdout, config.field, train.labels),
        labels=train.labels,
        digests=digests,
        dropped=len(dataset) - len(usable) if test is None else len(dataset) - len(rest),
    )


def _check_names(config: TrainConfig, dataset: Dataset, test: Dataset | None) -> None:
    known = {*dataset.labels, *(test.labels if test is not None else ())}
    for name in config.labels:
        if name not in known:
            raise InvalidInput(f"labels: no row has the label {name!r}", hint=f"known: {', '.join(sorted(known))}")


def _renamed(dataset: Dataset, config: TrainConfig) -> Dataset:
    if config.field not in dataset.fields:
        raise InvalidInput(
            f"data set {dataset.name!r} has no field {config.field!r} for {config.task}",
            hint=f"it has: {', '.join(dataset.fields)}",
        )
    if len(dataset) == 0:
        raise InvalidInput(f"data set {dataset.name!r} has no rows")
    rows = tuple(row._replace(label=config.labels.get(row.label, row.label)) for row in dataset.rows)
    return replace(dataset, rows=rows)


def _split(dataset: Dataset, share: float, *, seed: int) -> tuple[Dataset, Dataset]:
    """All but a share of the rows, and that share."""
    if not dataset.grouped_by and round(share * len(dataset)) < 1:
        raise InvalidInput(
            f"{len(dataset)} rows of data set {dataset.name!r} are too few to hold out {share:.0%} of them",
            hint="add rows, or raise split.validation and split.holdout",
        )
    first, second = dataset.split((1.0 - share, share), by="group" if dataset.grouped_by else "label-stratified", seed=seed)
    return first, second


def _rows(dataset: Dataset, field: str, labels: tuple[str, ...]) -> Rows:
    samples = tuple(example.sample for example in dataset)
    for index, sample in enumerate(samples):
        if field not in sample.fields:
            raise InvalidInput(f"row {index + 1} of a part of data set {dataset.name!r} has no {field}", hint="remove or fill it")
    weights = dataset.weights()
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
        raise InvalidInput(f"row weights of data set {dataset.name!r} must be finite, none negative and not all zero")
    return Rows(samples, field, dataset.label_ids(labels), weights)


def _check_classes(dataset: Dataset) -> None:
    counts = Counter(row.label for row in dataset.rows)
    if not counts:
        raise InvalidInput(
            f"every row of data set {dataset.name!r} is in the test too", hint="name another test, or set split: {dedupe: false}"
        )
    if counts[""]:
        raise InvalidInput(f"{counts['']} rows of data set {dataset.name!r} have no label", hint="remove or label them")
    if len(counts) < 2:
        raise InvalidInput(
            f"all {len(dataset)} rows of data set {dataset.name!r} have the label {dataset.labels[0]!r}",
            hint="a classifier needs at least 2 classes",
        )
    for label, count in counts.items():
        if count < _FEWEST:
            raise InvalidInput(
                f"class {label!r} of data set {dataset.name!r} has {count} rows, at least {_FEWEST} are needed",
                hint="add rows, or give it the name of another class under 'labels'",
            )
