"""How often each frozen gate set was looked at: a small database beside the registry.

Every look at the same rows is another chance for an equal challenger to pass, so the count belongs to the verdict. It is
written before the rows are read: a run that crashes in between has counted its look.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from inferloop.data.database import Database, Schema

_SCHEMA = Schema(
    "record of gate readings",
    0x494C6772,
    (
        (
            """CREATE TABLE readings (
                 gate_set TEXT NOT NULL, model TEXT NOT NULL, champion TEXT NOT NULL, challenger TEXT NOT NULL, time REAL NOT NULL
               ) STRICT""",
            "CREATE INDEX readings_by_gate_set ON readings (gate_set)",
        ),
    ),
)


class Readings:
    """Counts by gate set (the digest of its file). Any thread, any number of processes."""

    def __init__(self, path: Path | str) -> None:
        """Open the file, make it if it is not there; raises as `Database` does."""
        self._database = Database(path, _SCHEMA)

    def add(self, gate_set: str, *, model: str, champion: str, challenger: str) -> int:
        """Record one look and return how many there were before it."""
        with self._database.write() as connection:
            (before,) = connection.execute("SELECT count(*) FROM readings WHERE gate_set = ?", (gate_set,)).fetchone()
            row = (gate_set, model, champion, challenger, time.time())
            connection.execute("INSERT INTO readings VALUES (?, ?, ?, ?, ?)", row)
        return int(before)

    def count(self, gate_set: str) -> int:
        """How often this set was looked at."""
        return int(self._database.read("SELECT count(*) FROM readings WHERE gate_set = ?", (gate_set,))[0][0])

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
