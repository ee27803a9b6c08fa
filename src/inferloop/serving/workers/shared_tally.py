"""Counts that all workers of one server keep together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from inferloop.serving.tally import Tally
from inferloop.serving.workers.locked import locked


class SharedTally(Tally):
    """Counts in a file of the workers' folder; some ten microseconds each. Any thread, any number of processes.

    Args:
        folder: shared by all workers; gone when the server ends.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / "tally.json"
        self._lock = folder / "tally.lock"
        self._writing = folder / "alone.lock"

    def add(self, name: str, count: int = 1) -> int:
        """See `Tally.add`."""
        with locked(self._lock):
            counts = self._read()
            counts[name] = counts.get(name, 0) + count
            self._file.write_bytes(msgspec.json.encode(counts))
            return counts[name]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """See `Tally.alone`. Blocks while another one has it."""
        with locked(self._writing):
            yield

    def _read(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, int])
        except (FileNotFoundError, msgspec.DecodeError):  # a process was killed in the middle of writing: count anew
            return {}
