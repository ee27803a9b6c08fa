"""The append-only record of predictions, decisions and feedback that learning reads.

    Predictor ── append ──> queue ── writer thread ──> ledger.db <── feedback (synchronous, on disk at once)
                            bounded   one transaction
                                      for many rows

Predictions are many and may be lost (counted) when the disk fails; feedback is rare and never is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from inferloop.core.errors import InferloopError, NotFound, StorageError
from inferloop.core.home import home
from inferloop.core.telemetry import LEDGER_WRITTEN
from inferloop.data.database import Database, check_key
from inferloop.data.ledger import tables
from inferloop.data.ledger.policy import LedgerPolicy
from inferloop.data.ledger.records import (
    DecidedRow,
    DecisionRecord,
    Erased,
    FeedbackRecord,
    LabeledRow,
    LedgerStats,
    ModelStats,
    PredictionRecord,
)
from inferloop.data.ledger.retention import prune
from inferloop.data.ledger.stored import LateAnswer, Maker, stored_predictions
from inferloop.data.ledger.writer import BatchWriter

log = logging.getLogger(__name__)

_PRUNE_EVERY_S = 30.0
_PRUNE_EVERY_BYTES = 64 << 20
_PRUNE_S = 0.05
_PAGE_ROWS = 500
_ROW_BYTES = 400


def ledger_path() -> Path:
    """The ledger of this machine: `ledger.db` under `INFERLOOP_HOME`."""
    return home() / "ledger.db"


class Ledger:
    """One ledger file. All methods may be called from any thread; several processes may share the file.

    `append` is for the hot path; every other method waits for the disk and belongs off the event loop.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        policy: LedgerPolicy | None = None,
        policies: Mapping[str, LedgerPolicy] | None = None,
        queue_rows: int = 10_000,
        queue_bytes: int = 64 << 20,
    ) -> None:
        """Open the ledger; make or migrate the file if need be.

        Args:
            path: the file; its directory must exist.
            policy: for all models; its window and size bound the ledger.
            policies: by model, instead of `policy`: what is stored and the ages.
            queue_rows: predictions and decisions that may wait to be written; the last answer may go beyond.
            queue_bytes: bytes of them.

        Raises:
            NewerSchema: written by a newer inferloop.
            StorageError: no such directory, not a ledger, damaged, locked, or the disk is full.
        """
        self._policy = policy or LedgerPolicy()
        self._policies = dict(policies or {})
        self._front = Database(path, tables.SCHEMA)
        self._back = Database(path, tables.SCHEMA, timeout_s=2.0)
        self._prune_at = time.monotonic() + _PRUNE_EVERY_S
        self._prune_at_bytes = _PRUNE_EVERY_BYTES
        self._writer: BatchWriter[PredictionRecord | LateAnswer | DecisionRecord] = BatchWriter(
            self._write, queue_rows=queue_rows, queue_bytes=queue_bytes, settled=self._prune_sometimes
        )

    @property
    def path(self) -> Path:
        """The database file."""
        return self._front.path

    def append(self, record: PredictionRecord | DecisionRecord) -> None:
        """Queue one row; a few microseconds. Never blocks and never raises: what cannot be kept is counted as lost."""
        try:
            self._writer.put(record, 1, _size(record))
        except Exception:  # a prediction must not fail because its record is odd
            self._writer.lose(1, "invalid")

    def append_late(self, maker: Maker, answer: object, *, rows: int, size_bytes: int) -> None:
        """Queue the predictions of one answer, which need not hold it up; a microsecond. Never blocks and never raises.

        Args:
            maker: makes the predictions of this and other answers at once; called from the ledger's thread.
            answer: what `maker` makes them of; nobody may change it.
            rows: how many predictions it will make of the answer.
            size_bytes: about how much memory the answer takes.
        """
        self._writer.put((maker, answer, rows), rows, size_bytes + rows * _ROW_BYTES)

    def feedback(self, record: FeedbackRecord) -> None:
        """Attach the truth to a prediction; on disk when it returns. The last truth of several counts.

        Raises:
            NotFound: no such prediction.
            StorageError: the disk is full, or the database is locked or damaged.
        """
        if self.feedback_many([record]):
            raise NotFound(f"no prediction {record.prediction_id!r} in the ledger", hint="it may be older than the ledger keeps")

    def feedback_many(self, records: Sequence[FeedbackRecord]) -> list[str]:
        """Attach many truths in one transaction; returns the prediction ids that are not known, whose feedback is left out."""
        unknown = self._unknown([record.prediction_id for record in records])
        left_out = set(unknown)
        known = [record for record in records if record.prediction_id not in left_out]
        if known:
            with self._front.write() as connection:
                erased = tables.insert_feedback(connection, known)
            LEDGER_WRITTEN.labels("feedback").inc(len(known) - len(erased))
            unknown += erased
        return unknown

    def keep(self, prediction_id: str) -> None:
        """Keep the input of a prediction beyond the recent window, e.g. while it waits for review. Unknown ids do nothing."""
        self._unknown([prediction_id])
        with self._front.write() as connection:
            tables.keep_input(connection, prediction_id)

    def prediction(self, prediction_id: str) -> PredictionRecord:
        """One prediction; `input` and `embedding` are None once the policy dropped them.

        Raises:
            NotFound: no such prediction.
        """
        self._unknown([prediction_id])
        found = tables.select_predictions(self._front.read, [prediction_id])
        if not found:
            raise NotFound(f"no prediction {prediction_id!r} in the ledger", hint="it may be older than the ledger keeps")
        return found[prediction_id]

    def labeled(self, model: str, *, since: float | None = None, limit: int | None = None) -> Iterator[LabeledRow]:
        """The predictions of `model` (all versions) that have a truth, oldest feedback first.

        Args:
            model: its name.
            since: feedback given at this time or later, seconds since the epoch.
            limit: only the newest ones.
        """
        truths = tables.labeled_ids(self._front.read, model, since, limit)
        for start in range(0, len(truths), _PAGE_ROWS):
            page = truths[start : start + _PAGE_ROWS]
            found = tables.select_predictions(self._front.read, [id_ for id_, _, _ in page])
            yield from (LabeledRow(found[id_], truth, at) for id_, truth, at in page if id_ in found)

    def predictions(self, model: str | None = None) -> Iterator[PredictionRecord]:
        """All predictions (of one model), in the order of writing."""
        for page in self._pages(model):
            yield from page

    def decided(self, pipeline: str, *, since: float = 0.0, inputs: bool = False) -> Iterator[DecidedRow]:
        """The decisions of a pipeline with their predictions, in the order in which they were made.

        Args:
            pipeline: its name.
            since: those made at this time or later, seconds since the epoch.
            inputs: whether the kept inputs are wanted.
        """
        after = -1
        while True:
            after, page = tables.page_of_decided(self._front.read, after, pipeline, since, _PAGE_ROWS, inputs=inputs)
            if not page:
                return
            yield from page

    def stats(self) -> LedgerStats:
        """Rows by model, bytes, and what was lost."""
        models = self._front.read(
            """SELECT p.model, count(*), (SELECT count(DISTINCT f.row) FROM feedback f JOIN predictions q ON q.row = f.row
               WHERE q.model = p.model), (SELECT count(*) FROM inputs i JOIN predictions q ON q.row = i.row
               WHERE q.model = p.model AND i.body IS NOT NULL), min(p.time), max(p.time)
               FROM predictions p GROUP BY p.model"""
        )
        ((decisions,),) = self._front.read("SELECT count(*) FROM decisions")
        return LedgerStats(
            models=tuple(ModelStats(*row) for row in models),
            decisions=decisions,
            size_bytes=self._front.used_bytes(),
            queued=self._writer.queued,
            lost=self._writer.lost,
        )

    def erase(self, key: str) -> Erased:
        """Remove everything that belongs to `key`: predictions, inputs, feedback and decisions, overwritten in the file too.

        It does not reach rows that another process has queued and not written yet (a twentieth of a second).

        Raises:
            InvalidInput: the key is empty, which means that a prediction has none.
            StorageError: the rows that wait cannot be written, or the database cannot be changed now; nothing was removed.
        """
        check_key(key)
        self.flush()
        # Looking for the rows takes long and holds up nobody; removing them is short.
        predictions = tables.predictions_of_key(self._front.read, key)
        decisions = tables.decisions_of(self._front.read, key, predictions)
        with self._front.write() as connection:
            erased = tables.erase(connection, predictions, decisions)
        if not self._front.checkpoint():
            log.warning("erased rows stay in the write-ahead log until its readers end", extra={"path": str(self.path)})
        return erased

    def export(self, path: Path | str, *, model: str | None = None) -> int:
        """Write predictions with their truth, oldest first, as JSONL or CSV by the suffix of `path`.

        JSONL has the inputs (text as it is, other bytes as base64); CSV has none.

        Returns:
            The number of predictions.

        Raises:
            InvalidInput: another suffix.
            StorageError: the file cannot be written.
        """
        from inferloop.data.ledger.export import write_export

        self.flush()
        return write_export(Path(path), self._exported(model))

    def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until every row queued before the call is on disk.

        Raises:
            StorageError: it is not in time: the disk is full or too slow.
        """
        if not self._writer.flush(timeout_s):
            raise StorageError(
                f"ledger {self.path}: {self._writer.queued} rows are not written after {timeout_s:g} s", hint="is the disk full?"
            )

    def close(self) -> None:
        """Write what waits (5 s at most) and close. A second call does nothing."""
        self._writer.close(timeout_s=5.0)
        self._back.close()
        self._front.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _unknown(self, ids: Sequence[str]) -> list[str]:
        """Those that are no prediction, those included that wait to be written."""
        waiting = self._writer.queued  # asked first: what is written during the look is looked for again
        unknown = tables.unknown_ids(self._front.read, ids)
        if unknown and waiting:
            self.flush()
            unknown = tables.unknown_ids(self._front.read, ids)
        return unknown

    def _policy_of(self, model: str) -> LedgerPolicy:
        return self._policies.get(model, self._policy)

    def _write(self, items: Sequence[PredictionRecord | LateAnswer | DecisionRecord]) -> None:
        decisions = [item for item in items if isinstance(item, DecisionRecord)]
        predictions = stored_predictions([item for item in items if not isinstance(item, DecisionRecord)])
        with self._back.write(durable=False) as connection:
            tables.insert_predictions(connection, predictions, self._policy_of)
            tables.insert_decisions(connection, decisions)
        LEDGER_WRITTEN.labels("prediction").inc(len(predictions))
        LEDGER_WRITTEN.labels("decision").inc(len(decisions))

    def _prune_sometimes(self) -> None:
        """Between two batches, and never for long: the next one, and who waits for it, wait meanwhile."""
        written = self._writer.settled_bytes
        if time.monotonic() < self._prune_at and written < self._prune_at_bytes:
            return
        until = time.monotonic() + _PRUNE_S
        try:
            prune(self._back, self._policy, self._policy_of, now=time.time(), go_on=lambda: time.monotonic() < until)
        except InferloopError as error:
            log.warning("ledger could not remove old rows: %s", error)
        else:
            if time.monotonic() >= until:  # the rest after the next batch
                return
        self._prune_at = time.monotonic() + _PRUNE_EVERY_S
        self._prune_at_bytes = written + _PRUNE_EVERY_BYTES

    def _exported(self, model: str | None) -> Iterator[tuple[PredictionRecord, FeedbackRecord | None]]:
        for page in self._pages(model):
            truths = tables.select_truth(self._front.read, [record.id for record in page])
            yield from ((record, truths.get(record.id)) for record in page)

    def _pages(self, model: str | None) -> Iterator[list[PredictionRecord]]:
        after, page = tables.page_of_predictions(self._front.read, -1, model, _PAGE_ROWS)
        while page:
            yield page
            after, page = tables.page_of_predictions(self._front.read, after, model, _PAGE_ROWS)


def _size(record: PredictionRecord | DecisionRecord) -> int:
    """About how many bytes a row takes; also refuses what is no record."""
    if isinstance(record, PredictionRecord):
        return _ROW_BYTES + len(record.input or b"") + len(record.embedding or b"") + 32 * len(record.scores)
    return _ROW_BYTES + len(record.message_id)
