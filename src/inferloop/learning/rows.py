"""Labeled ledger rows as arrays: embeddings gathered, and every row dealt to fit or to judge, once and for all.

A row's side follows from a hash of what it is about, so a row that judged one update is never fitted by a later one, and
repetitions of the same input never stand on both sides.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import InferloopError, InvalidInput
from inferloop.data.ledger.records import LabeledRow, PredictionRecord
from inferloop.data.transforms.executor import TransformExecutor
from inferloop.evaluation.sessions import opened, run_rows
from inferloop.learning.head_model import declared_head
from inferloop.prediction.inputs import stored_sample

SplitBy = Literal["input", "key", "time"]
_SPLITS = ("input", "key", "time")


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedRows:
    """Labeled rows ready for a head, ordered by prediction id.

    Attributes:
        ids: prediction ids.
        embedding: float32 [N, D].
        label: int64 [N], the index of the truth.
        time: float64 [N], when the predictions were made, seconds since the epoch.
    """

    ids: tuple[str, ...]
    embedding: Array
    label: Array
    time: Array

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, wanted: Array) -> EmbeddedRows:
        """The rows of a mask or of indices."""
        ids = tuple(np.array(self.ids, dtype=object)[wanted].tolist())
        return EmbeddedRows(ids, self.embedding[wanted], self.label[wanted], self.time[wanted])

    @property
    def digest(self) -> str:
        """`sha256:` of the ids, labels and embeddings."""
        content = hashlib.sha256(msgspec.json.encode(self.ids))
        content.update(self.label.astype("<i8").tobytes())
        content.update(self.embedding.astype("<f4").tobytes())
        return "sha256:" + content.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """What the ledger offers an update.

    Attributes:
        fit: rows that may be fitted.
        judge: the newest rows of the other side, one an input, for the guard alone.
        skipped: labeled rows that cannot be used, counted by reason.
    """

    fit: EmbeddedRows
    judge: EmbeddedRows
    skipped: Mapping[str, int] = field(default_factory=dict)


def collect(
    champion: Bundle,
    labeled: Iterable[LabeledRow],
    *,
    shares_backbone: Callable[[int], bool],
    judge_share: float = 0.4,
    judge_rows: int = 2000,
    split_by: SplitBy = "input",
) -> Collected:
    """Gather the labeled rows of a model.

    Args:
        champion: its labels and its embedding count.
        labeled: from `Ledger.labeled`.
        shares_backbone: whether a version computes the same embedding as the champion; otherwise it is computed again.
        judge_share: the share of the rows that are never fitted.
        judge_rows: at most this many of them, the newest.
        split_by: what rows must share to stand on the same side: the same input, the same key, or (`time`) nothing, and the
            newest rows judge; then a later update may fit them.

    Raises:
        InvalidInput: a share outside of 0 to 1, or no such split.
    """
    if not 0 < judge_share < 1 or judge_rows < 1 or split_by not in _SPLITS:
        raise InvalidInput(
            f"judge share {judge_share}, judge rows {judge_rows}, split by {split_by!r}",
            hint=f"a share between 0 and 1, at least one row, and one of {', '.join(_SPLITS)}",
        )
    skipped: Counter[str] = Counter()
    known = {label: index for index, label in enumerate(champion.labels)}
    usable: list[LabeledRow] = []
    for row in labeled:
        if row.truth in known:
            usable.append(row)
        else:
            skipped[f"label {row.truth!r} is not one of the model's"] += 1
    vectors = _Embeddings(champion, shares_backbone, skipped).of([row.prediction for row in usable])
    kept = sorted(((row, vector) for row, vector in zip(usable, vectors, strict=True) if vector is not None), key=_by_id)
    rows = _arrays([row for row, _ in kept], [vector for _, vector in kept], known, width=_width(champion))
    judged = _judged([row for row, _ in kept], rows.time, judge_share=judge_share, split_by=split_by)
    single = judged & _newest_of_input([row for row, _ in kept], rows.time)
    if repeated := int(judged.sum() - single.sum()):
        skipped["another row with the same input judges"] = repeated
    judge = rows.take(single)
    newest = np.sort(np.argsort(judge.time, kind="stable")[-judge_rows:])
    return Collected(rows.take(~judged), judge.take(newest), dict(skipped))


class _Embeddings:
    """Embeddings of predictions: as stored where the version shares the backbone, else computed from the stored input."""

    def __init__(self, champion: Bundle, shares_backbone: Callable[[int], bool], skipped: Counter[str]) -> None:
        self._champion = champion
        self._shares = shares_backbone
        self._skipped = skipped
        self._width = _width(champion)
        self._known: dict[int, bool] = {}

    def of(self, records: Sequence[PredictionRecord]) -> list[Array | None]:
        found = [self._stored(record) for record in records]
        missing = [index for index, vector in enumerate(found) if vector is None]
        if missing:
            for index, vector in zip(missing, self._computed([records[i] for i in missing]), strict=True):
                found[index] = vector
        return found

    def _stored(self, record: PredictionRecord) -> Array | None:
        if record.embedding is None or len(record.embedding) != 4 * self._width:
            return None
        if record.version not in self._known:
            self._known[record.version] = self._shares(record.version)
        return np.frombuffer(record.embedding, "<f4") if self._known[record.version] else None

    def _computed(self, records: Sequence[PredictionRecord]) -> list[Array | None]:
        executor = TransformExecutor(self._champion)
        tensors = [self._tensors(record, executor) for record in records]
        rows = [row for row in tensors if row is not None]
        if not rows:
            return [None] * len(records)
        name = declared_head(self._champion).embedding
        with opened(self._champion) as session:
            computed = iter(run_rows(session, rows, [name])[name])
        return [None if row is None else next(computed) for row in tensors]

    def _tensors(self, record: PredictionRecord, executor: TransformExecutor) -> Tensors | None:
        sample = stored_sample(record.input, record.input_kind, executor.signature_fields)
        if sample is None:
            self._skipped["neither embedding nor input is kept"] += 1
            return None
        try:
            return executor.apply(sample)
        except InferloopError:
            self._skipped["the stored input cannot be read by the champion"] += 1
            return None


def _judged(rows: Sequence[LabeledRow], time: Array, *, judge_share: float, split_by: SplitBy) -> Array:
    if split_by == "time":
        newest = np.zeros(len(rows), bool)
        newest[np.argsort(time, kind="stable")[len(rows) - round(judge_share * len(rows)) :]] = True
        return newest
    units = [_unit(row.prediction, split_by) for row in rows]
    shares = [int.from_bytes(hashlib.sha256(unit).digest()[:8], "big") / 2**64 for unit in units]
    return np.array(shares, np.float64) < judge_share


def _newest_of_input(rows: Sequence[LabeledRow], time: Array) -> Array:
    """A mask with one row an input: the guard counts independent rows, and a message sent often proves nothing twice."""
    newest = {_unit(rows[index].prediction, "input"): index for index in np.argsort(time, kind="stable").tolist()}
    mask = np.zeros(len(rows), bool)
    mask[list(newest.values())] = True
    return mask


def _unit(record: PredictionRecord, split_by: SplitBy) -> bytes:
    if split_by == "key" and record.key:
        return record.key.encode()
    return record.input or record.embedding or record.id.encode()


def _arrays(rows: Sequence[LabeledRow], vectors: Sequence[Array], known: Mapping[str, int], *, width: int) -> EmbeddedRows:
    embedding = np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, width), np.float32)
    return EmbeddedRows(
        tuple(row.prediction.id for row in rows),
        embedding,
        np.array([known[row.truth] for row in rows], np.int64),
        np.array([row.prediction.time for row in rows], np.float64),
    )


def _by_id(pair: tuple[LabeledRow, Array]) -> str:
    return pair[0].prediction.id


def _width(champion: Bundle) -> int:
    spec = champion.signature.output(declared_head(champion).embedding)
    width = spec.shape[-1]
    if len(spec.shape) != 2 or width is None:
        raise InvalidInput(f"embedding {spec.name!r} has shape {list(spec.shape)}, a head needs [N, D]")
    return width
