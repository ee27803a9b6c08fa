"""A row in a SQLite table; a row whose key is there already is left as it is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.reaching import reached

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class SqliteSink(Sink):
    """Writes batches in one transaction each, on a thread of its own."""

    class Config(BaseModel):
        """Where to and what.

        Attributes:
            table: made if it is not there, with the columns of `row` and the key column as primary key.
            row: column to value; a text that starts with `=` is an expression. Without it: one column `payload` with JSON.
            key: the column that holds the idempotency key.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: Path
        table: Identifier
        row: dict[Identifier, Any] | None = Field(None, min_length=1)
        key: Identifier = "idempotency_key"

    payload_key = "row"
    idempotent = True
    batched = True

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._name = context.name
        self._columns = tuple(config.row or ("payload",))
        self._thread: ThreadPoolExecutor | None = None
        self._database: sqlite3.Connection | None = None

    async def open(self) -> None:
        """See `Sink.open`."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{self._name}")
        await reached(lambda: self._run(self._connect), part=f"sink {self._name}", url=f"file://{self._config.path.name}")

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        await self._run(lambda: self._insert(deliveries))

    async def close(self) -> None:
        """See `Sink.close`."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._disconnect)
            thread.shutdown()

    async def _run(self, work: Any) -> None:
        if self._thread is None:
            raise Unavailable(f"sink {self._name!r} is closed")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.OperationalError as error:
            if "no column named" in str(error) or "has no column" in str(error):
                raise InvalidInput(f"sink {self._name!r}: table {self._config.table!r}: {error}") from error
            raise Unavailable(f"sink {self._name!r}: {error}") from error
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:  # a value that no column takes
            raise InvalidInput(f"sink {self._name!r}: {error}") from error

    def _connect(self) -> None:
        database = sqlite3.connect(self._config.path, timeout=5.0, isolation_level=None, check_same_thread=False)
        columns = ", ".join(f'"{column}"' for column in self._columns)
        key = self._config.key
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute(f'CREATE TABLE IF NOT EXISTS "{self._config.table}" ("{key}" TEXT PRIMARY KEY, {columns})')
        has_key = any(row[1] == key and row[5] for row in database.execute(f'PRAGMA table_info("{self._config.table}")'))
        unique = has_key or self._has_unique_index(database, key)
        if not unique:
            database.close()
            raise InvalidInput(
                f"sink {self._name!r}: table {self._config.table!r} has no unique column {key!r}",
                hint=f"add one: CREATE UNIQUE INDEX once ON {self._config.table}({key})",
            )
        self._database = database

    def _has_unique_index(self, database: sqlite3.Connection, key: str) -> bool:
        for index in database.execute(f'PRAGMA index_list("{self._config.table}")').fetchall():
            columns = [row[2] for row in database.execute(f'PRAGMA index_info("{index[1]}")')]
            if index[2] and columns == [key]:
                return True
        return False

    def _insert(self, deliveries: Sequence[Delivery]) -> None:
        database = self._database
        if database is None:
            self._connect()
            database = self._database
        if database is None:
            return
        names = ", ".join(f'"{column}"' for column in (self._config.key, *self._columns))
        marks = ", ".join("?" * (len(self._columns) + 1))
        statement = f'INSERT INTO "{self._config.table}" ({names}) VALUES ({marks}) ON CONFLICT ("{self._config.key}") DO NOTHING'  # noqa: S608  # checked identifiers
        rows = [self._values(delivery) for delivery in deliveries]
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany(statement, rows)
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise

    def _values(self, delivery: Delivery) -> tuple[Any, ...]:
        if self._config.row is None:
            return (delivery.key, msgspec.json.encode(delivery.payload).decode())
        return (delivery.key, *(_scalar(delivery.payload.get(column)) for column in self._columns))

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    return msgspec.json.encode(value).decode()
