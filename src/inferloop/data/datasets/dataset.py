"""Named, labeled samples: read lazily, split honestly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput
from inferloop.core.transform import FieldKind
from inferloop.data.config import validate
from inferloop.data.datasets import splits
from inferloop.data.datasets.loading import load_rows
from inferloop.data.datasets.row import Example, Row, Stored
from inferloop.data.datasets.spec import DatasetSpec

SplitBy = Literal["group", "time", "label-stratified"]


@dataclass(frozen=True, eq=False)  # no slots: digest and labels are computed once, when asked for
class Dataset:
    """Labeled samples in a fixed order. Texts and numbers are in memory, files are read one by one while iterating.

    Attributes:
        fields: the fields of every sample, with their kinds.
        rows: the rows before their files are read.
        grouped_by: the columns that a split must keep together; empty without a group.
        origin: where it comes from and how it was split, for the lineage of what is made of it.
    """

    name: str
    fields: Mapping[str, FieldKind]
    rows: tuple[Row, ...] = field(repr=False)
    grouped_by: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, source: Path | str | Mapping[str, Any] | DatasetSpec, **columns: Any) -> Dataset:
        """Read a data set.

        Args:
            source: a path, or a whole specification.
            columns: keys of `DatasetSpec`, e.g. `text="message", label="intent", group=["label", "track"]`.

        Raises:
            NotFound: there is no such file.
            InvalidInput: a wrong column, encoding, delimiter or cell; names the file, the line and the known columns.
        """
        spec = _spec(source, columns)
        loaded = load_rows(spec)
        name = spec.name or spec.path.name.split(".")[0]
        shown = spec.model_dump(mode="json", exclude_defaults=True)
        return cls(name, loaded.fields, tuple(loaded.rows), tuple(spec.groups), {"source": shown})

    @classmethod
    def of(
        cls,
        name: str,
        fields: Mapping[str, Sequence[Any]],
        labels: Sequence[str],
        *,
        kinds: Mapping[str, FieldKind],
        groups: Sequence[str] = (),
        times: Sequence[float] = (),
        weights: Sequence[float] = (),
        origin: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """A data set of values in memory: one value a row for each field.

        Raises:
            InvalidInput: the sequences differ in length.
        """
        count = len(labels)
        lengths = {**{key: len(values) for key, values in fields.items()}, "groups": len(groups), "times": len(times)}
        for what, length in {**lengths, "weights": len(weights)}.items():
            if length != count and (what in fields or length):
                raise InvalidInput(f"data set {name!r} has {count} labels and {length} of {what}")
        rows = tuple(
            Row(
                tuple(values[index] for values in fields.values()),
                label=str(labels[index]),
                group=str(groups[index]) if len(groups) else "",
                time=float(times[index]) if len(times) else None,
                weight=float(weights[index]) if len(weights) else 1.0,
            )
            for index in range(count)
        )
        return cls(name, {key: kinds[key] for key in fields}, rows, ("groups",) if len(groups) else (), dict(origin or {}))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Example]:
        names = tuple(self.fields)
        for row in self.rows:
            yield row.example(names)

    def __getitem__(self, index: int) -> Example:
        return self.rows[index].example(tuple(self.fields))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes: in numeric order if all are whole numbers, else in that of their letters."""
        found = {row.label for row in self.rows if row.label}
        numeric = all(label.isascii() and label.isdecimal() for label in found)
        return tuple(sorted(found, key=lambda label: (int(label), label) if numeric else (0, label)))

    @cached_property
    def digest(self) -> str:
        """`sha256:` over all rows in order, contents of files included; reads every file once."""
        total = hashlib.sha256("|".join(self.fields).encode())
        for row in self.rows:
            facts = f"{row.label}\0{row.group}\0{row.time}\0{row.weight}\0"
            total.update(hashlib.sha256(facts.encode("utf-8", "surrogatepass") + content(row)).digest())
        return "sha256:" + total.hexdigest()

    def values(self, name: str) -> list[Any]:
        """The values of one field, files read.

        Raises:
            InvalidInput: no such field; the hint lists the known ones.
        """
        if name not in self.fields:
            raise InvalidInput(f"data set {self.name!r} has no field {name!r}", hint=f"known: {', '.join(self.fields)}")
        position = list(self.fields).index(name)
        found = (row.values[position] for row in self.rows)
        return [value.read() if isinstance(value, Stored) else value for value in found]

    def label_ids(self, labels: Sequence[str] | None = None) -> Array:
        """The position of each row's label in `labels` (by default the own ones), int64 [N].

        Raises:
            InvalidInput: a row's label is not among them.
        """
        known = {label: index for index, label in enumerate(self.labels if labels is None else labels)}
        unknown = sorted({row.label for row in self.rows} - known.keys())
        if unknown:
            hint = f"known: {', '.join(list(known)[:40])}"
            raise InvalidInput(f"data set {self.name!r} has rows with the label {unknown[0]!r}, which is not known", hint=hint)
        return np.array([known[row.label] for row in self.rows], dtype=np.int64)

    def weights(self) -> Array:
        """How much each row counts, float32 [N]."""
        return np.array([row.weight for row in self.rows], dtype=np.float32)

    def select(self, indices: Sequence[int] | Array) -> Dataset:
        """The rows of these numbers, in this order."""
        return replace(self, rows=tuple(self.rows[index] for index in np.asarray(indices, dtype=np.int64).tolist()))

    def where(self, keep: Callable[[Row], bool]) -> Dataset:
        """The rows that `keep` says yes to."""
        return replace(self, rows=tuple(row for row in self.rows if keep(row)))

    def dedupe(self) -> Dataset:
        """Without repeated inputs, the first one kept. Texts are compared without case and outer or repeated spaces."""
        first: dict[bytes, Row] = {}
        for row in self.rows:
            first.setdefault(_identity(row), row)
        return replace(self, rows=tuple(first.values()), origin={**self.origin, "deduplicated": len(self) - len(first)})

    def without(self, other: Dataset) -> Dataset:
        """Without the inputs that `other` has too, so that nothing trained on is judged on."""
        known = {_identity(row) for row in other.rows}
        return self.where(lambda row: _identity(row) not in known)

    def split(self, shares: Sequence[float], *, by: SplitBy | None = None, seed: int = 0) -> tuple[Dataset, ...]:
        """Divide into parts that share no row; the same seed gives the same parts.

        Args:
            shares: one a part, e.g. `(0.9, 0.1)`; what they leave of 1 is in no part.
            by: `group` keeps groups whole, `time` puts the earliest rows first, `label-stratified` gives every label the
                same shares; None is at random.
            seed: of the random order.

        Raises:
            InvalidInput: a random or stratified split of a data set that declares a group, no group or time to split by, or
                a part that would be empty.
        """
        splits.check_shares(shares)
        parts = self._parts(list(shares), by, np.random.default_rng(seed))
        for number, part in enumerate(parts, start=1):
            if not len(part):
                raise InvalidInput(f"part {number} of {len(parts)} of data set {self.name!r} would be empty ({len(self)} rows)")
        rule = {"by": by or "random", "shares": list(shares), "seed": seed}
        return tuple(
            replace(self.select(part), origin={**self.origin, "split": {**rule, "part": number}})
            for number, part in enumerate(parts)
        )

    def lineage(self) -> dict[str, Any]:
        """What a Bundle records of the data it was made of."""
        return {"name": self.name, "digest": self.digest, "rows": len(self), **self.origin}

    def _parts(self, shares: list[float], by: SplitBy | None, generator: np.random.Generator) -> list[Array]:
        labels = [row.label for row in self.rows]
        if by == "group":
            if not self.grouped_by:
                raise InvalidInput(f"data set {self.name!r} declares no group to split by", hint="name its column: group")
            return splits.grouped_parts([row.group for row in self.rows], labels, shares, generator)
        if by == "time":
            times = [row.time for row in self.rows if row.time is not None]
            if len(times) != len(self.rows):
                raise InvalidInput(f"data set {self.name!r} declares no time to split by", hint="name its column: time")
            return splits.timed_parts(times, shares)
        if by not in (None, "label-stratified"):
            raise InvalidInput(f"a split by {by!r} is not known", hint="known: group, time, label-stratified, or none for random")
        if self.grouped_by:
            columns = ", ".join(self.grouped_by)
            raise InvalidInput(
                f"data set {self.name!r} declares the group {columns}, a split that ignores it would leak", hint="by='group'"
            )
        if by is None:
            return splits.random_parts(len(self.rows), shares, generator)
        return splits.stratified_parts(labels, shares, generator)


def content(row: Row) -> bytes:
    """The bytes of a row's values, files read, each with its length."""
    parts: list[bytes] = []
    for value in row.values:
        body = _bytes(value.read() if isinstance(value, Stored) else value)
        parts += [str(len(body)).encode(), b":", body]
    return b"".join(parts)


def _identity(row: Row) -> bytes:
    values = tuple(" ".join(value.casefold().split()) if isinstance(value, str) else value for value in row.values)
    return hashlib.sha256(content(row._replace(values=values))).digest()


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str}{value.shape}".encode() + value.tobytes()
    return repr(value).encode()


def _spec(source: Path | str | Mapping[str, Any] | DatasetSpec, columns: Mapping[str, Any]) -> DatasetSpec:
    if isinstance(source, DatasetSpec):
        return source.model_copy(update=dict(columns)) if columns else source
    given = dict(source) if isinstance(source, Mapping) else {"path": source}
    return validate(DatasetSpec, {**given, **columns}, "data set")
