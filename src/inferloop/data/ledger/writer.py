"""A bounded queue and the thread that writes it in batches: producers never wait, a failing disk loses as little as can be."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from inferloop.core.errors import StorageError
from inferloop.core.telemetry import LEDGER_LOST, LEDGER_QUEUE

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_NEVER = sys.maxsize
_BACKOFF_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class BatchWriter(Generic[Item]):
    """Collects items for `write`, which is called from one thread with the items in order. An item is one row or several.

    When `write` raises `StorageError`, the batch goes back to the head of the queue and is tried again with growing pauses;
    the queue fills, and what does not fit is lost and counted. When it raises anything else, the items are tried one by one
    and the guilty ones are lost and counted.

    Attributes:
        lost: rows that will never be written.
        settled_bytes: bytes of what was written or given up since the start.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], None],
        *,
        queue_rows: int,
        queue_bytes: int,
        settled: Callable[[], None] = lambda: None,
        batch_rows: int = 500,
        commit_s: float = 0.05,
    ) -> None:
        """Start the thread.

        Args:
            write: stores a batch, all of it or nothing.
            queue_rows: rows that may wait, those being written included; the last item may go beyond.
            queue_bytes: bytes that may wait, as told to `put`.
            settled: called from the same thread after every batch, when those who waited for it go on.
            batch_rows: rows of one call of `write`; the last item may go beyond.
            commit_s: how long the first row of a batch waits for company.
        """
        self.lost = 0
        self.settled_bytes = 0
        self._write = write
        self._after = settled
        self._max_rows = queue_rows
        self._max_bytes = queue_bytes
        self._batch_rows = batch_rows
        self._commit_s = commit_s
        self._queue: deque[tuple[Item, int, int]] = deque()
        self._bytes = 0
        self._accepted = 0
        self._settled = 0
        self._wake_at = _NEVER
        self._failures = 0
        self._hurry = 0
        self._closing_at: float | None = None
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._progress = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name="inferloop-ledger", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Rows accepted and not on disk yet."""
        return self._accepted - self._settled

    def put(self, item: Item, rows: int, size_bytes: int) -> None:
        """Queue one item or count its rows as lost; half a microsecond, never raises."""
        with self._lock:
            waiting = self._accepted - self._settled
            if waiting < self._max_rows and self._bytes + size_bytes <= self._max_bytes and self._closing_at is None:
                self._queue.append((item, rows, size_bytes))
                self._bytes += size_bytes
                self._accepted += rows
                if waiting + rows >= self._wake_at:
                    self._wake_at = _NEVER
                    self._work.notify()
                return
            reason = "closed" if self._closing_at is not None else "disk_failing" if self._failures else "queue_full"
        self.lose(rows, reason)

    def lose(self, rows: int, reason: str) -> None:
        """Count rows that will never be written."""
        with self._lock:
            self.lost += rows
        LEDGER_LOST.labels(reason).inc(rows)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all rows accepted before the call are settled (written, or lost and counted); false if time ran out."""
        with self._lock:
            target = self._accepted
            self._hurry += 1
            self._work.notify()
            try:
                return self._progress.wait_for(lambda: self._settled >= target, timeout_s)
            finally:
                self._hurry -= 1

    def close(self, timeout_s: float) -> None:
        """Write what waits, for `timeout_s` at most, and end the thread; what is left is lost and counted."""
        with self._lock:
            if self._closing_at is None:
                self._closing_at = time.monotonic() + timeout_s
            self._work.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take():
            items = [item for item, _, _ in batch]
            try:
                self._write(items)
            except StorageError as error:
                if not self._put_back(batch, error):
                    return
                continue
            except Exception:  # this loop must outlive any one item
                log.exception("ledger batch refused, trying its items one by one", extra={"items": len(items)})
                if not self._one_by_one(batch):
                    return
            else:
                self._settle(batch)
            self._call_after()

    def _take(self) -> list[tuple[Item, int, int]]:
        with self._lock:
            while not self._queue and self._closing_at is None:
                self._wait_for(1)
            if self.queued < self._batch_rows and not self._hurry and self._closing_at is None:
                self._wait_for(self._batch_rows, self._commit_s)
            batch, room = [], self._batch_rows
            while self._queue and room > 0:
                batch.append(self._queue.popleft())
                room -= batch[-1][1]
            return batch

    def _wait_for(self, rows: int, timeout_s: float | None = None) -> None:
        """Until so many rows wait, somebody is in a hurry, or time is up."""
        self._wake_at = rows
        self._work.wait(timeout_s)
        self._wake_at = _NEVER

    def _settle(self, batch: list[tuple[Item, int, int]]) -> None:
        settled_bytes = sum(size for _, _, size in batch)
        with self._lock:
            recovered = self._failures
            self._failures = 0
            self._settled += sum(rows for _, rows, _ in batch)
            self._bytes -= settled_bytes
            self.settled_bytes += settled_bytes
            self._progress.notify_all()
            LEDGER_QUEUE.set(self.queued)
        if recovered:
            log.info("ledger writes again", extra={"failures": recovered, "lost": self.lost})

    def _put_back(self, batch: list[tuple[Item, int, int]], error: StorageError) -> bool:
        """Back to the head of the queue, then a pause; false when it is time to close."""
        with self._lock:
            self._queue.extendleft(reversed(batch))
            self._failures += 1
            LEDGER_QUEUE.set(self.queued)
            failures, waiting = self._failures, self.queued
        if failures == 1:
            log.error("ledger cannot write, predictions go on: %s", error, extra={"queued": waiting, "lost": self.lost})
        pause_until = time.monotonic() + _BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1]
        with self._lock:
            while (left := pause_until - time.monotonic()) > 0 and self._closing_at is None:
                self._work.wait(left)
        time.sleep(_BACKOFF_S[0])
        with self._lock:
            if self._closing_at is None or time.monotonic() < self._closing_at:
                return True
            waiting = self.queued
            self._settled += waiting
            self._queue.clear()
        self.lose(waiting, "disk_failing")
        return False

    def _one_by_one(self, batch: list[tuple[Item, int, int]]) -> bool:
        """False when it is time to close."""
        for place, (item, rows, _) in enumerate(batch):
            try:
                self._write([item])
            except StorageError as error:
                return self._put_back(batch[place:], error)
            except Exception:  # the item that spoiled its batch
                log.exception("ledger row refused", extra={"rows": rows})
                self.lose(rows, "invalid")
            self._settle(batch[place : place + 1])
        return True

    def _call_after(self) -> None:
        try:
            self._after()
        except Exception:  # this loop must outlive that, too
            log.exception("what follows a ledger batch failed")
