import sqlite3
from pathlib import Path
from sqlite3 import IntegrityError

import pytest

from inferloop.core.errors import InvalidInput, NewerSchema, StorageError
from inferloop.data.database import Database, Schema

ONE = Schema("thing", 0x1234, (("CREATE TABLE t (a TEXT UNIQUE)",),))
TWO = Schema("thing", 0x1234, (*ONE.migrations, ("ALTER TABLE t ADD COLUMN b TEXT DEFAULT 'new'",)))


def insert(database: Database, *texts: str) -> None:
    with database.write() as connection:
        connection.executemany("INSERT INTO t VALUES (?)", [(text,) for text in texts])


def test_an_older_file_is_migrated_forward_and_keeps_its_rows(tmp_path: Path) -> None:
    old = Database(tmp_path / "d.db", ONE)
    with old.write() as connection:
        connection.execute("INSERT INTO t VALUES ('kept')")
    old.close()
    new = Database(tmp_path / "d.db", TWO)
    assert new.read("SELECT a, b FROM t") == [("kept", "new")]
    assert new.read("PRAGMA user_version") == [(2,)]
    new.close()


def test_a_newer_file_is_refused_with_both_versions(tmp_path: Path) -> None:
    Database(tmp_path / "d.db", TWO).close()
    with pytest.raises(NewerSchema, match="has schema 2, this inferloop reads up to 1") as caught:
        Database(tmp_path / "d.db", ONE)
    assert caught.value.hint == "update inferloop"


def test_another_kind_of_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = sqlite3.connect(tmp_path / "d.db")
    foreign.execute("CREATE TABLE theirs (a)")
    foreign.close()
    with pytest.raises(StorageError, match="not a thing of inferloop"):
        Database(tmp_path / "d.db", ONE)
    assert Database(tmp_path / "e.db", ONE).read("SELECT count(*) FROM t") == [(0,)]


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "d.db").write_bytes(b"no database at all, " * 100)
    with pytest.raises(StorageError, match="it is not a database"):
        Database(tmp_path / "d.db", ONE)


def test_a_missing_directory_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="it cannot be opened"):
        Database(tmp_path / "missing" / "d.db", ONE)


def test_a_lock_held_by_another_connection_is_told_after_the_timeout(tmp_path: Path) -> None:
    Database(tmp_path / "d.db", ONE).close()
    holder = sqlite3.connect(tmp_path / "d.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    database = Database(tmp_path / "d.db", ONE, timeout_s=0.05)
    with pytest.raises(StorageError, match="locked by another process"):
        insert(database, "x")
    holder.close()
    database.close()


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "d.db", ONE)
    with pytest.raises(IntegrityError):
        insert(database, "x", "x")
    assert database.read("SELECT * FROM t") == []
    database.close()


def test_a_full_file_is_a_storage_error_and_undone(tmp_path: Path) -> None:
    database = Database(tmp_path / "d.db", ONE)
    database.limit_pages(12)
    with pytest.raises(StorageError, match="the disk is full"):
        insert(database, *(f"{number}" * 2000 for number in range(100)))
    assert database.read("SELECT count(*) FROM t") == [(0,)]
    database.close()


def test_text_that_is_no_unicode_is_the_callers_mistake(tmp_path: Path) -> None:
    database = Database(tmp_path / "d.db", ONE)
    with pytest.raises(InvalidInput, match="no valid Unicode"):
        database.read("SELECT * FROM t WHERE a = ?", ("\ud800",))
    database.close()


def test_a_closed_database_says_so(tmp_path: Path) -> None:
    database = Database(tmp_path / "d.db", ONE)
    database.close()
    database.close()
    with pytest.raises(StorageError, match="it is closed"):
        database.read("SELECT 1")


def test_a_write_that_need_not_be_durable_does_not_weaken_the_next_one(tmp_path: Path) -> None:
    database = Database(tmp_path / "d.db", ONE)
    with database.write(durable=False) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    with database.write() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    database.close()


def test_a_damaged_file_is_told_in_one_line(tmp_path: Path) -> None:
    database = Database(tmp_path / "d.db", ONE)
    insert(database, *(f"{number}" * 500 for number in range(200)))
    database.checkpoint()
    database.close()
    content = bytearray((tmp_path / "d.db").read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    (tmp_path / "d.db").write_bytes(content)
    damaged = Database(tmp_path / "d.db", ONE)
    with pytest.raises(StorageError, match="it is damaged"):
        damaged.read("SELECT * FROM t")
    damaged.close()
