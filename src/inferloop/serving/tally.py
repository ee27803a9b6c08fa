"""Counts by name: within one process, or, as `workers/shared_tally.py` has it, of all workers of a server."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext


class Tally:
    """Counts of this process. One thread at a time for each name."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> int:
        """Count on; returns where the count is then."""
        self._counts[name] += count
        return self._counts[name]

    def alone(self) -> AbstractContextManager[None]:
        """While it is open, no other process writes what several of them write to."""
        return nullcontext()
