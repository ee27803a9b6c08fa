"""Deliveries on disk that the other side does not have yet: the outbox of an edge whose uplink comes and goes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sqlite3 import Connection
from typing import NamedTuple, TypeVar

import msgspec

from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery
from inferloop.data.database import Database, Schema

T = TypeVar("T")

_TABLE = """CREATE TABLE parcels (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, pipeline TEXT NOT NULL, sink TEXT NOT NULL, key TEXT NOT NULL,
    message_id TEXT NOT NULL, payload BLOB NOT NULL, bytes INTEGER NOT NULL, stored REAL NOT NULL, UNIQUE (pipeline, sink, key)
)"""
_ORDER = "CREATE INDEX parcels_in_order ON parcels (pipeline, sink, seq)"
_SCHEMA = Schema("outbox", 0x494C4F42, ((_TABLE, _ORDER),))
_ROW_BYTES = 128
"""What a row costs beside its texts, about."""
_DROPPED_AT_A_TIME = 256
_INSERT = "INSERT OR IGNORE INTO parcels (pipeline, sink, key, message_id, payload, bytes, stored) VALUES (?, ?, ?, ?, ?, ?, ?)"
_PAGE = """SELECT seq, key, message_id, payload, stored, bytes FROM parcels
WHERE pipeline = ? AND sink = ? ORDER BY seq LIMIT ?"""


class StoredRow(NamedTuple):
    """One delivery as the table has it."""

    pipeline: str
    sink: str
    key: str
    message_id: str
    payload: bytes
    size: int
    stored: float


class StoredParcel(NamedTuple):
    """One delivery in the outbox, and when it came there."""

    seq: int
    delivery: Delivery
    stored: float
    size: int


class Outbox:
    """One file, for all sinks of a pipeline, in the order in which they were put there. Used on one event loop.

    Args:
        path: made if it is not there.
        max_bytes: of all payloads, keys and rows of this pipeline.
        drop_oldest: what to do when it is full; otherwise `put` waits until something was forwarded.
    """

    def __init__(self, path: Path, pipeline: str, *, max_bytes: int, drop_oldest: bool, clock: Clock = SYSTEM) -> None:
        self._path = path
        self._pipeline = pipeline
        self._max_bytes = max_bytes
        self._drop_oldest = drop_oldest
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"outbox-{pipeline}")
        self._database: Database | None = None
        self._bytes = 0
        self._removals = 0
        self._removed = asyncio.Condition()

    async def open(self) -> None:
        """Open the file; StorageError if that cannot be."""

        def connect() -> None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = Database(self._path, _SCHEMA)
            sql = "SELECT coalesce(sum(bytes), 0) FROM parcels WHERE pipeline = ?"
            ((self._bytes,),) = self._database.read(sql, (self._pipeline,))

        await self._run(connect)

    async def put(self, sink: str, deliveries: Sequence[Delivery]) -> Counter[str]:
        """Store all; on disk (fsynced) when it returns. A key that waits already is left.

        Returns:
            How many deliveries were dropped for them, by sink.

        Raises:
            InvalidInput: one delivery alone is larger than the outbox.
            StorageError: nothing was stored.
        """
        rows = [self._row(sink, delivery) for delivery in deliveries]
        needed = sum(row.size for row in rows)
        if needed > self._max_bytes:
            raise InvalidInput(f"outbox {self._path}: {needed} bytes do not fit into max_size {self._max_bytes}")
        while True:
            before = self._removals
            dropped = await self._run(lambda: self._insert(rows, needed))
            if dropped is not None:
                return dropped
            async with self._removed:  # what was removed meanwhile counts, too
                await self._removed.wait_for(lambda before=before: self._removals != before)  # type: ignore[misc]

    async def page(self, sink: str, most: int) -> list[StoredParcel]:
        """The oldest deliveries of one sink."""
        rows = await self._run(lambda: self._file.read(_PAGE, (self._pipeline, sink, most)))
        return [
            StoredParcel(seq, Delivery(key, msgspec.json.decode(body), id_), stored, size)
            for seq, key, id_, body, stored, size in rows
        ]

    async def remove(self, parcels: Sequence[StoredParcel]) -> None:
        """Forget what was forwarded. After a power cut it may be there again: it is forwarded again, with the same key."""

        def delete() -> None:
            with self._file.write(durable=False) as connection:
                freed = sum(
                    parcel.size * connection.execute("DELETE FROM parcels WHERE seq = ?", (parcel.seq,)).rowcount
                    for parcel in parcels
                )
            self._bytes -= freed

        await self._run(delete)
        self._removals += 1
        async with self._removed:
            self._removed.notify_all()

    async def close(self) -> None:
        """Close the file. A second call does nothing."""
        database, self._database = self._database, None
        if database is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, database.close)
        self._thread.shutdown()

    @property
    def _file(self) -> Database:
        if self._database is None:
            raise Unavailable(f"outbox {self._path} is closed")
        return self._database

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _row(self, sink: str, delivery: Delivery) -> StoredRow:
        payload = msgspec.json.encode(delivery.payload)
        size = len(payload) + len(delivery.key) + len(delivery.message_id) + _ROW_BYTES
        return StoredRow(self._pipeline, sink, delivery.key, delivery.message_id, payload, size, self._clock.time())

    def _insert(self, rows: Sequence[StoredRow], needed: int) -> Counter[str] | None:
        """Store rows; None if there is no room for them."""
        file = self._file
        with file.write() as connection:
            room = self._max_bytes - self._bytes
            if room < needed and not self._drop_oldest:
                return None
            dropped, freed = self._drop(connection, needed - room)
            added = sum(row.size * connection.execute(_INSERT, row).rowcount for row in rows)
        self._bytes += added - freed
        return dropped

    def _drop(self, connection: Connection, missing: int) -> tuple[Counter[str], int]:
        """Delete the oldest until `missing` bytes are free."""
        dropped: Counter[str] = Counter()
        freed = 0
        while freed < missing:
            oldest = connection.execute(
                "SELECT seq, sink, bytes FROM parcels WHERE pipeline = ? ORDER BY seq LIMIT ?",
                (self._pipeline, _DROPPED_AT_A_TIME),
            ).fetchall()
            for seq, sink, size in oldest:
                if freed >= missing:
                    break
                connection.execute("DELETE FROM parcels WHERE seq = ?", (seq,))
                dropped[sink] += 1
                freed += size
            if not oldest:
                break
        return dropped, freed
