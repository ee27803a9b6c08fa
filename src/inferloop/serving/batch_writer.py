"""Writes what the event loop must not wait for: many at once, in a thread, bounded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_EVERY_S = 0.2
_MAX_WAITING = 20_000


class BatchWriter(Generic[Item]):
    """A bounded queue and the thread that empties it.

    Args:
        write: called in the thread with what has gathered, in order; what it raises is logged, and those items are lost.
        every_s: how long an item may wait.
        max_waiting: above it items are dropped and counted.

    Attributes:
        lost: how many items were dropped or could not be written.
    """

    def __init__(
        self, write: Callable[[list[Item]], None], *, name: str, every_s: float = _EVERY_S, max_waiting: int = _MAX_WAITING
    ) -> None:
        self.lost = 0
        self._write = write
        self._name = name
        self._every_s = every_s
        self._max_waiting = max_waiting
        self._items: list[Item] = []
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def append(self, item: Item) -> None:
        """Take one item; returns at once. Event loop, or one thread."""
        if len(self._items) >= self._max_waiting:
            self.lost += 1
            return
        self._items.append(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name=self._name, daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Write what is there now. Blocks; any thread."""
        with self._writing:
            taken = self._items[: len(self._items)]
            del self._items[: len(taken)]
            if not taken:
                return
            try:
                self._write(taken)
            except Exception:  # the log writer outlives a full disk; the server goes on without these lines
                self.lost += len(taken)
                log.exception("%s not written", self._name, extra={"items": len(taken)})

    def close(self) -> None:
        """Write the rest and end the thread. A second call does nothing."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None
        self.flush()

    def _main(self) -> None:
        while not self._closed.wait(self._every_s):
            self.flush()
