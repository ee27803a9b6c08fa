"""The tables of the registry and the statements on them. Whoever writes runs inside one transaction of the caller."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from inferloop.core.errors import NotFound
from inferloop.data.database import Schema
from inferloop.registry.records import Canary, Desired, Move

Read = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]

SCHEMA = Schema(
    kind="registry",
    application_id=0x494C7265,
    migrations=(
        (
            # last: the highest version number ever given
            """CREATE TABLE models (name TEXT PRIMARY KEY, owner TEXT NOT NULL, created REAL NOT NULL, last INTEGER NOT NULL)
               WITHOUT ROWID""",
            # ready = 0: the number is taken, the files are still being copied
            """CREATE TABLE versions (model TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, created REAL NOT NULL,
               owner TEXT NOT NULL, size_bytes INTEGER NOT NULL, ready INTEGER NOT NULL, PRIMARY KEY (model, version))
               WITHOUT ROWID""",
            """CREATE TABLE aliases (model TEXT NOT NULL, alias TEXT NOT NULL, version INTEGER NOT NULL,
               PRIMARY KEY (model, alias)) WITHOUT ROWID""",
            """CREATE TABLE moves (number INTEGER PRIMARY KEY, model TEXT NOT NULL, alias TEXT NOT NULL, before INTEGER,
               after INTEGER, kind TEXT NOT NULL, by TEXT NOT NULL, time REAL NOT NULL, report_digest TEXT NOT NULL)""",
            "CREATE INDEX moves_model ON moves (model)",
            """CREATE TABLE traffic (model TEXT NOT NULL, role TEXT NOT NULL, version INTEGER NOT NULL, share REAL NOT NULL,
               by TEXT NOT NULL, PRIMARY KEY (model, role)) WITHOUT ROWID""",
            "CREATE TABLE generation (only INTEGER PRIMARY KEY CHECK (only = 1), value INTEGER NOT NULL)",
            "INSERT INTO generation VALUES (1, 0)",
        ),
    ),
)


def changed(connection: sqlite3.Connection) -> None:
    """Tell the followers."""
    connection.execute("UPDATE generation SET value = value + 1")


def reader(connection: sqlite3.Connection) -> Read:
    """Reading inside a transaction."""
    return lambda sql, parameters: connection.execute(sql, parameters).fetchall()


def check_model(read: Read, name: str) -> None:
    """Raise `NotFound` with the known models unless there is one of that name."""
    if read("SELECT 1 FROM versions WHERE model = ? AND ready LIMIT 1", (name,)):
        return
    known = [row[0] for row in read("SELECT DISTINCT model FROM versions WHERE ready ORDER BY model", ())]
    raise NotFound(f"no model named {name!r}", hint=f"known: {', '.join(known)}" if known else "the registry is empty")


def check_version(read: Read, name: str, version: int) -> None:
    """Raise `NotFound` with the known versions unless the model has that one."""
    check_model(read, name)
    if read("SELECT 1 FROM versions WHERE model = ? AND version = ? AND ready", (name, version)):
        return
    known = [str(row[0]) for row in read("SELECT version FROM versions WHERE model = ? AND ready ORDER BY version", (name,))]
    raise NotFound(f"model {name!r} has no version {version}", hint=f"known: {', '.join(known)}")


def aliases(read: Read, name: str) -> dict[str, int]:
    """Version by alias."""
    return dict(read("SELECT alias, version FROM aliases WHERE model = ? ORDER BY alias", (name,)))


def latest(read: Read, name: str) -> int | None:
    """The highest version."""
    version: int | None = read("SELECT max(version) FROM versions WHERE model = ? AND ready", (name,))[0][0]
    return version


def reserve(connection: sqlite3.Connection, name: str, *, above: int, owner: str, now: float) -> int:
    """Take the next version number of a model, higher than `above`; a removed version's number is not used again."""
    connection.execute("INSERT OR IGNORE INTO models VALUES (?, ?, ?, 0)", (name, owner, now))
    connection.execute("UPDATE models SET last = max(last, ?) + 1 WHERE name = ?", (above, name))
    version = int(connection.execute("SELECT last FROM models WHERE name = ?", (name,)).fetchone()[0])
    connection.execute("INSERT INTO versions VALUES (?, ?, '', ?, ?, 0, 0)", (name, version, now, owner))
    return version


def give_up(connection: sqlite3.Connection, name: str, version: int) -> None:
    """Undo `reserve`."""
    connection.execute("DELETE FROM versions WHERE model = ? AND version = ? AND NOT ready", (name, version))
    connection.execute("UPDATE models SET last = last - 1 WHERE name = ? AND last = ?", (name, version))


def remove_model(connection: sqlite3.Connection, name: str, *, by: str, now: float) -> None:
    """Remove all versions, aliases and traffic; the history says so."""
    for alias, version in aliases(reader(connection), name).items():
        move(connection, Move(name, alias, version, None, "remove", by, now))
    connection.execute("DELETE FROM traffic WHERE model = ?", (name,))
    connection.execute("DELETE FROM versions WHERE model = ?", (name,))


def move(connection: sqlite3.Connection, change: Move) -> None:
    """Carry out one alias move and write it into the history."""
    if change.after is None:
        connection.execute("DELETE FROM aliases WHERE model = ? AND alias = ?", (change.model, change.alias))
    else:
        connection.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?, ?)", (change.model, change.alias, change.after))
    connection.execute(
        "INSERT INTO moves (model, alias, before, after, kind, by, time, report_digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (change.model, change.alias, change.before, change.after, change.kind, change.by, change.time, change.report_digest),
    )


def history(read: Read, name: str) -> list[Move]:
    """All alias moves of a model, oldest first."""
    sql = "SELECT model, alias, before, after, kind, by, time, report_digest FROM moves WHERE model = ? ORDER BY number"
    return [Move(*row) for row in read(sql, (name,))]


def desired(read: Read, name: str, champion: str) -> Desired:
    """What servers converge to."""
    roles = {role: (version, share) for role, version, share in read(_TRAFFIC, (name,))}
    canary = Canary(*roles["canary"]) if "canary" in roles else None
    return Desired(aliases(read, name).get(champion), canary, roles["shadow"][0] if "shadow" in roles else None)


def set_traffic(connection: sqlite3.Connection, name: str, role: str, *, version: int | None, share: float, by: str) -> None:
    """Give a version a part of the traffic, or with None take it away."""
    if version is None:
        connection.execute("DELETE FROM traffic WHERE model = ? AND role = ?", (name, role))
    else:
        connection.execute("INSERT OR REPLACE INTO traffic VALUES (?, ?, ?, ?, ?)", (name, role, version, share, by))


def end_traffic(connection: sqlite3.Connection, name: str, version: int) -> None:
    """A version that became champion is neither canary nor shadow any more."""
    connection.execute("DELETE FROM traffic WHERE model = ? AND version = ?", (name, version))


def uses(read: Read, name: str, version: int) -> list[str]:
    """What points at a version: aliases, canary, shadow."""
    pointing = [f"@{alias}" for alias, at in aliases(read, name).items() if at == version]
    return pointing + [role for role, at, _ in read(_TRAFFIC, (name,)) if at == version]


_TRAFFIC = "SELECT role, version, share FROM traffic WHERE model = ? ORDER BY role"
