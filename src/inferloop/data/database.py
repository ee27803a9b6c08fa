"""One SQLite file in WAL mode with a schema version: opened, migrated forward, its errors told in our words."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from inferloop.core.errors import InvalidInput, NewerSchema, StorageError

_CAUSES = {
    sqlite3.SQLITE_FULL: ("the disk is full", "make space on the disk"),
    sqlite3.SQLITE_BUSY: ("it is locked by another process", "find out who holds it: `fuser FILE`"),
    sqlite3.SQLITE_LOCKED: ("it is locked", "try again"),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", "restore a copy, or move it away and start a new one"),
    sqlite3.SQLITE_NOTADB: ("it is not a database", "check the path"),
    sqlite3.SQLITE_READONLY: ("it is read-only", "check the permissions of the file and its directory"),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "check that the directory exists and may be written"),
    sqlite3.SQLITE_IOERR: ("the disk is failing or full", "check the disk"),
}


@dataclass(frozen=True, slots=True)
class Schema:
    """What a kind of file holds.

    Attributes:
        kind: its name in messages, e.g. `ledger`.
        application_id: the mark in the file's header that tells our kinds of file apart.
        migrations: statements that bring version i to i + 1, by i; the first make an empty file version 1.
    """

    kind: str
    application_id: int
    migrations: tuple[tuple[str, ...], ...]

    @property
    def version(self) -> int:
        """The version that this release writes."""
        return len(self.migrations)


class Database:
    """One connection, for any thread; calls take turns. Other connections and processes may use the same file.

    Deleted content is overwritten (`secure_delete`), so that what was erased cannot be read from the file.
    """

    def __init__(self, path: Path | str, schema: Schema, *, timeout_s: float = 10.0) -> None:
        """Open the file; make or migrate it if need be.

        Args:
            path: the file; its directory must exist.
            schema: what the file holds.
            timeout_s: how long to wait for another process's write.

        Raises:
            NewerSchema: written by a newer inferloop.
            StorageError: no such directory, another kind of file, damaged, locked, or the disk is full.
        """
        self.path = Path(path)
        self._kind = schema.kind
        self._lock = Lock()
        self._durable = True
        with storage_errors(self.path, self._kind):
            self._connection = _connect(self.path, timeout_s)
            try:
                _check_or_migrate(self._connection, self.path, schema)
            except BaseException:
                self._connection.close()
                raise

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one query."""
        with storage_errors(self.path, self._kind), self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end of the block, undone if it raises.

        Args:
            durable: wait until the disk has it. Without, it survives a kill of the process but not a power cut.

        Raises:
            StorageError: nothing of the block is stored.
        """
        with storage_errors(self.path, self._kind), self._lock:
            if durable != self._durable:
                self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            with _transaction(self._connection):
                yield self._connection

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the file and empty it; false if a reader or writer was in the way."""
        with storage_errors(self.path, self._kind), self._lock:
            (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not busy

    def give_back(self, pages: int) -> None:
        """Return up to `pages` free pages of the file to the file system."""
        with storage_errors(self.path, self._kind), self._lock:
            self._connection.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()

    def used_bytes(self) -> int:
        """The size of the pages in use, without the write-ahead log."""
        with storage_errors(self.path, self._kind), self._lock:
            pages, free, size = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
            return (pages - free) * size

    def limit_pages(self, pages: int) -> None:
        """Let writes through this connection fail as on a full disk above this many pages."""
        with self._lock:
            self._connection.execute(f"PRAGMA max_page_count={int(pages)}")

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        with self._lock, suppress(sqlite3.Error):
            self._connection.close()

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])


def check_key(key: str) -> None:
    """Raise `InvalidInput` for an empty key: it would erase everything that belongs to nobody."""
    if not key:
        raise InvalidInput("the key is empty", hint="name the customer, device, ... whose rows are to go")


@contextmanager
def storage_errors(path: Path, kind: str) -> Iterator[None]:
    """Turn what the disk and the file do to us into a `StorageError` that names both; a refused value or constraint passes."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.DataError):
        raise
    except sqlite3.ProgrammingError as error:
        if "closed database" not in str(error):
            raise
        raise StorageError(f"{kind} {path}: it is closed") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        cause, hint = _CAUSES.get(code, (str(error), ""))
        raise StorageError(f"{kind} {path}: {cause}", hint=hint) from error
    except UnicodeEncodeError as error:
        raise InvalidInput(f"text that is no valid Unicode cannot be stored: {error.object[:40]!r}") from error


def _connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    try:
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        _enter_wal(connection, timeout_s)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _enter_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    # The switch to WAL does not wait for other processes by itself: two that make the same file meet here.
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _check_or_migrate(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    if _version(connection, path, schema) == schema.version:
        return
    with _transaction(connection):
        version = _version(connection, path, schema)
        for statements in schema.migrations[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id={schema.application_id}")
        connection.execute(f"PRAGMA user_version={schema.version}")


def _version(connection: sqlite3.Connection, path: Path, schema: Schema) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    mark = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if mark != schema.application_id and (mark or version or tables):
        raise StorageError(f"{path} is a database, but not a {schema.kind} of inferloop", hint="check the path")
    if version > schema.version:
        raise NewerSchema(
            f"{schema.kind} {path} has schema {version}, this inferloop reads up to {schema.version}", hint="update inferloop"
        )
    return version


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise
