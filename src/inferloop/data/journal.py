"""The durable record of decisions: written before the first sink is tried, found again when a message comes again.

    find ──> (decide) ──> write ─────────────> sinks ──> delivered ──> finish ──> acknowledge the source
                          one transaction, fsynced:      in memory     one transaction
                          decisions, rule state,
                          once_per keys

After a crash `pending` gives what is still to be delivered, with the same payloads and idempotency keys.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from types import MappingProxyType, TracebackType
from typing import Self

from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.errors import Conflict, InvalidInput
from inferloop.core.home import home
from inferloop.data import journal_review as review
from inferloop.data import journal_tables as tables
from inferloop.data.database import Database, check_key
from inferloop.data.journal_records import JournalErased, ReviewItem, StoredDecision, StoredDelivery

__all__ = ["Journal", "JournalErased", "ReviewItem", "StoredDecision", "StoredDelivery", "journal_path"]

_KEEP_S = 30 * 86_400.0
_NOTHING: Mapping[str, bytes] = MappingProxyType({})


def journal_path() -> Path:
    """The journal of this machine: `journal.db` under `INFERLOOP_HOME`."""
    return home() / "journal.db"


class Journal:
    """One journal file, for any number of pipelines; a pipeline is run by one process at a time.

    Methods may be called from any thread. `write`, `finish`, `flush` and the review methods wait for the disk
    (milliseconds): call them off the event loop. `find`, `seen_once` and `delivered` do not wait for a running `write`.
    """

    def __init__(self, path: Path | str, *, keep_s: float = _KEEP_S, clock: Clock = SYSTEM) -> None:
        """Open the journal; make or migrate the file if need be.

        Args:
            path: the file; its directory must exist.
            keep_s: how long delivered decisions and once_per keys are remembered, at least. What is not delivered stays.
            clock: what time it is.

        Raises:
            NewerSchema: written by a newer inferloop.
            StorageError: no such directory, not a journal, damaged, locked, or the disk is full.
        """
        self._store = Database(path, tables.SCHEMA)
        self._reader = Database(path, tables.SCHEMA)
        self._keep_s = keep_s
        self._clock = clock
        self._oldest = -1
        self._marks: list[tables.Mark] = []
        self._marks_lock = Lock()

    @property
    def path(self) -> Path:
        """The database file."""
        return self._store.path

    def find(self, pipeline: str, message_ids: Iterable[str]) -> dict[str, StoredDecision]:
        """The decisions that these messages have already, by message id; each delivery says whether it was confirmed."""
        return tables.select_decisions(self._reader.read, pipeline, list(message_ids))

    def write(
        self, decisions: Sequence[StoredDecision], state: Mapping[str, bytes] = _NOTHING, once_keys: Sequence[str] = ()
    ) -> None:
        """Store decisions, rule state and once_per keys in one transaction; on disk (fsynced) when it returns.

        Args:
            decisions: of one pipeline, at least one; a decision without deliveries is finished from the start.
            state: changed entries of the pipeline's rule state, by name; empty bytes remove an entry. An entry named
                `KEY` or `...|KEY` belongs to that key and goes with `erase(KEY)`.
            once_keys: the `once_per` keys that these decisions used up; those used up before stay as they are.

        Raises:
            InvalidInput: no decision, decisions of several pipelines, or a payload that is not plain JSON.
            Conflict: one of the messages is decided already; nothing was written. `find` tells which.
            StorageError: the disk is full, or the database is locked or damaged; nothing was written.
        """
        pipelines = {decision.pipeline for decision in decisions}
        if len(pipelines) != 1:
            raise InvalidInput(f"one write takes the decisions of one pipeline, got {len(pipelines)}: {sorted(pipelines)}")
        (pipeline,) = pipelines
        now = self._clock.time()
        rows = tables.encode(decisions, now)
        marks = self._take_marks()
        try:
            with self._store.write() as connection:
                tables.insert_decisions(connection, rows)
                tables.insert_state(connection, pipeline, state)
                tables.insert_once(connection, pipeline, once_keys, now)
                tables.mark_delivered(connection, marks)
                self._oldest = tables.forget(connection, self._oldest, before=now - self._keep_s, limit=2 * len(rows) + 8)
        except sqlite3.IntegrityError as error:
            self._put_marks_back(marks)
            raise Conflict(
                f"one of {len(rows)} messages is decided already in pipeline {pipeline!r}", hint="is the pipeline running twice?"
            ) from error
        except BaseException:
            self._put_marks_back(marks)
            raise

    def save_state(self, pipeline: str, state: Mapping[str, bytes]) -> None:
        """Store entries of the rule state without a decision, as `write` does with one; fsynced when it returns."""
        with self._store.write() as connection:
            tables.insert_state(connection, pipeline, state)

    def delivered(self, pipeline: str, message_id: str, sink: str) -> None:
        """Note that `sink` confirmed; in memory until the next `finish`, `write` or `flush`. No I/O."""
        with self._marks_lock:
            self._marks.append(tables.Mark(pipeline, message_id, sink))

    def finish(self, pipeline: str, message_ids: Iterable[str]) -> None:
        """Mark every delivery of these decisions confirmed, in one transaction, with what `delivered` noted.

        It survives a kill of the process without waiting for the disk; a power cut may undo it, then they are sent again.

        Raises:
            StorageError: the disk is full, or the database is locked or damaged; the marks are kept for the next try.
        """
        with self._marks_lock:
            self._marks.extend(tables.Mark(pipeline, id_, None) for id_ in message_ids)
        self.flush()

    def flush(self) -> None:
        """Commit what `delivered` noted, as `finish`."""
        marks = self._take_marks()
        if not marks:
            return
        try:
            with self._store.write(durable=False) as connection:
                tables.mark_delivered(connection, marks)
        except BaseException:
            self._put_marks_back(marks)
            raise

    def pending(self, pipeline: str) -> list[StoredDecision]:
        """Decisions with a delivery that no sink confirmed yet, in the order of writing."""
        self.flush()
        return tables.select_pending(self._reader.read, pipeline)

    def state(self, pipeline: str) -> dict[str, bytes]:
        """The rule state as last written."""
        return dict(self._reader.read("SELECT name, value FROM state WHERE pipeline = ?", (pipeline,)))

    def seen_once(self, pipeline: str, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that a decision used up before."""
        return tables.select_once(self._reader.read, pipeline, list(keys))

    def reopen(self, pipeline: str, message_ids: Iterable[str]) -> int:
        """Forget that these messages are dead letters, so that they may be decided anew; any other decision stays.

        Returns:
            How many were; one whose dead letter is still to be delivered is none.
        """
        self.flush()
        with self._store.write() as connection:
            return tables.reopen(connection, pipeline, list(message_ids))

    def review_add(self, items: Sequence[ReviewItem]) -> int:
        """Put items into the review queue, fsynced; an item whose key is there already is left. Returns how many are new."""
        return review.add(self._store, items)

    def review_list(self, pipeline: str | None = None, *, done: bool = False, limit: int = 100) -> list[ReviewItem]:
        """Items that wait (or, with `done`, those that were answered), oldest first."""
        return review.items(self._reader, pipeline, done=done, limit=limit)

    def review_done(self, key: str, *, label: str, by: str) -> ReviewItem:
        """Answer an item; the same answer again does nothing.

        Raises:
            NotFound: no item has that key.
            Conflict: it has another answer.
        """
        return review.answer(self._store, key, label=label, by=by)

    def erase(self, key: str) -> JournalErased:
        """Remove payloads, scores, reviews and rule state of `key`; a delivered decision is reduced to its message id.

        The message id stays so that a redelivery still does not act again. Decisions under way stay until delivered.

        Raises:
            InvalidInput: the key is empty, which means that a decision has none.
        """
        check_key(key)
        self.flush()
        # Looking for the rows takes long and holds up nobody; removing them is short.
        delivered, left = tables.decisions_of_key(self._reader.read, key)
        with self._store.write() as connection:
            erased = tables.erase(connection, key, delivered)
        self._store.checkpoint()
        return replace(erased, left=left)

    def close(self) -> None:
        """Commit what was noted and close. A second call does nothing."""
        try:
            self.flush()
        finally:
            self._store.close()
            self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take_marks(self) -> list[tables.Mark]:
        with self._marks_lock:
            marks, self._marks = self._marks, []
            return marks

    def _put_marks_back(self, marks: list[tables.Mark]) -> None:
        with self._marks_lock:
            self._marks[:0] = marks
