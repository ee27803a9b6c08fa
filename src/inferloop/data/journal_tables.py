# ruff: noqa: S608 (statements are put together from constants of this file; values are always bound)
"""The tables of the journal and the statements on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from inferloop.core.errors import InvalidInput
from inferloop.data.database import Schema
from inferloop.data.journal_records import JournalErased, StoredDecision, StoredDelivery

Rows = list[tuple[Any, ...]]
Read = Callable[[str, Sequence[Any]], Rows]

SCHEMA = Schema(
    kind="journal",
    application_id=0x494C6A6F,
    migrations=(
        (
            """CREATE TABLE decisions (id INTEGER PRIMARY KEY, pipeline TEXT NOT NULL, message_id TEXT NOT NULL,
               key TEXT NOT NULL, time REAL NOT NULL, rule TEXT NOT NULL, reason TEXT NOT NULL, label TEXT NOT NULL, score REAL,
               prediction_id TEXT NOT NULL, recorded REAL NOT NULL, UNIQUE (pipeline, message_id))""",
            """CREATE TABLE deliveries (decision INTEGER NOT NULL, ordinal INTEGER NOT NULL, sink TEXT NOT NULL,
               key TEXT NOT NULL, payload TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (decision, ordinal))
               WITHOUT ROWID""",
            "CREATE INDEX deliveries_open ON deliveries (decision) WHERE done = 0",
            """CREATE TABLE state (pipeline TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL,
               PRIMARY KEY (pipeline, name)) WITHOUT ROWID""",
            """CREATE TABLE once (pipeline TEXT NOT NULL, key TEXT NOT NULL, recorded REAL NOT NULL,
               PRIMARY KEY (pipeline, key)) WITHOUT ROWID""",
            "CREATE INDEX once_recorded ON once (recorded)",
            """CREATE TABLE reviews (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, pipeline TEXT NOT NULL,
               message_id TEXT NOT NULL, owner TEXT NOT NULL, payload TEXT NOT NULL, time REAL NOT NULL,
               prediction_id TEXT NOT NULL, label TEXT NOT NULL DEFAULT '', by TEXT NOT NULL DEFAULT '', done_at REAL)""",
            "CREATE INDEX reviews_waiting ON reviews (number) WHERE done_at IS NULL",
        ),
    ),
)

_FIELDS = "d.pipeline, d.message_id, d.key, d.time, d.rule, d.reason, d.label, d.score, d.prediction_id"
_DELIVERY = "v.sink, v.key, v.payload, v.done"
_JOINED = f"SELECT d.id, {_FIELDS}, {_DELIVERY} FROM decisions d LEFT JOIN deliveries v ON v.decision = d.id"
_OF_MESSAGE = "(SELECT id FROM decisions WHERE pipeline = ? AND message_id = ?)"


class Mark(NamedTuple):
    """A confirmed delivery; `sink` None means all of the decision's."""

    pipeline: str
    message_id: str
    sink: str | None


class EncodedDecision(NamedTuple):
    """A decision as columns, behind its row number, and its deliveries likewise."""

    columns: tuple[Any, ...]
    deliveries: tuple[tuple[Any, ...], ...]


def encode(decisions: Sequence[StoredDecision], now: float) -> list[EncodedDecision]:
    """Decisions as columns, so that a payload which is no JSON is refused before anything is written."""
    return [EncodedDecision(_columns(decision, now), _deliveries(decision)) for decision in decisions]


def insert_decisions(connection: sqlite3.Connection, rows: Sequence[EncodedDecision]) -> None:
    """Add decisions; raises `sqlite3.IntegrityError` if a message has one already."""
    (first,) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM decisions").fetchone()
    numbered = list(enumerate(rows, first))
    connection.executemany(
        "INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [(id_, *row.columns) for id_, row in numbered]
    )
    connection.executemany(
        "INSERT INTO deliveries (decision, ordinal, sink, key, payload) VALUES (?, ?, ?, ?, ?)",
        [(id_, *delivery) for id_, row in numbered for delivery in row.deliveries],
    )


def insert_state(connection: sqlite3.Connection, pipeline: str, state: Mapping[str, bytes]) -> None:
    """Replace entries of the rule state; empty bytes remove one."""
    if not state:
        return
    connection.executemany(
        "INSERT OR REPLACE INTO state VALUES (?, ?, ?)", [(pipeline, name, value) for name, value in state.items() if value]
    )
    connection.executemany(
        "DELETE FROM state WHERE pipeline = ? AND name = ?", [(pipeline, name) for name, value in state.items() if not value]
    )


def insert_once(connection: sqlite3.Connection, pipeline: str, keys: Sequence[str], now: float) -> None:
    """Remember used `once_per` keys."""
    connection.executemany("INSERT OR IGNORE INTO once VALUES (?, ?, ?)", [(pipeline, key, now) for key in keys])


def mark_delivered(connection: sqlite3.Connection, marks: Sequence[Mark]) -> None:
    """Mark deliveries confirmed."""
    every = f"UPDATE deliveries SET done = 1 WHERE decision = {_OF_MESSAGE} AND done = 0"
    connection.executemany(every, [(m.pipeline, m.message_id) for m in marks if m.sink is None])
    connection.executemany(f"{every} AND sink = ?", [m for m in marks if m.sink is not None])


def forget(connection: sqlite3.Connection, oldest: int, *, before: float, limit: int) -> int:
    """Remove up to `limit` delivered decisions and once_per keys recorded before a time.

    Decisions are looked at in the order of writing, from behind row `oldest`; those under way are passed over.

    Returns:
        The row number up to which there is nothing left to remove.
    """
    rows = connection.execute(
        """SELECT id, recorded, EXISTS (SELECT 1 FROM deliveries WHERE decision = d.id AND done = 0)
           FROM decisions d WHERE id > ? ORDER BY id LIMIT ?""",
        (oldest, limit),
    )
    old: list[tuple[int]] = []
    for id_, recorded, is_open in rows:
        if recorded >= before:
            break
        oldest = id_
        if not is_open:
            old.append((id_,))
    connection.executemany("DELETE FROM deliveries WHERE decision = ?", old)
    connection.executemany("DELETE FROM decisions WHERE id = ?", old)
    once = "SELECT pipeline, key FROM once WHERE recorded < ? ORDER BY recorded LIMIT ?"
    connection.executemany(
        "DELETE FROM once WHERE pipeline = ? AND key = ?", connection.execute(once, (before, limit)).fetchall()
    )
    return oldest


def select_decisions(read: Read, pipeline: str, message_ids: Sequence[str]) -> dict[str, StoredDecision]:
    """The decisions of these messages, by message id."""
    if not message_ids:
        return {}
    sql = f"{_JOINED} WHERE d.pipeline = ? AND d.message_id IN (SELECT value FROM json_each(?)) ORDER BY d.id, v.ordinal"
    return {decision.message_id: decision for decision in _decisions(read(sql, (pipeline, json_text(message_ids))))}


def select_pending(read: Read, pipeline: str) -> list[StoredDecision]:
    """Decisions under way, in the order of writing."""
    sql = f"""{_JOINED} WHERE d.pipeline = ? AND d.id IN (SELECT decision FROM deliveries WHERE done = 0)
              ORDER BY d.id, v.ordinal"""
    return _decisions(read(sql, (pipeline,)))


def reopen(connection: sqlite3.Connection, pipeline: str, message_ids: Sequence[str]) -> int:
    """Remove the delivered decisions of these messages that are dead letters."""
    sql = """SELECT id FROM decisions d WHERE pipeline = ? AND message_id IN (SELECT value FROM json_each(?))
             AND reason LIKE 'dead_letter: %' AND NOT EXISTS (SELECT 1 FROM deliveries WHERE decision = d.id AND done = 0)"""
    rows = connection.execute(sql, (pipeline, json_text(message_ids))).fetchall()
    connection.executemany("DELETE FROM deliveries WHERE decision = ?", rows)
    connection.executemany("DELETE FROM decisions WHERE id = ?", rows)
    return len(rows)


def select_once(read: Read, pipeline: str, keys: Sequence[str]) -> set[str]:
    """Those keys that are used up."""
    if not keys:
        return set()
    sql = "SELECT key FROM once WHERE pipeline = ? AND key IN (SELECT value FROM json_each(?))"
    return {row[0] for row in read(sql, (pipeline, json_text(keys)))}


def decisions_of_key(read: Read, key: str) -> tuple[list[int], int]:
    """The row numbers of a key's delivered decisions, and how many are under way; looks at every row."""
    sql = "SELECT id, EXISTS (SELECT 1 FROM deliveries WHERE decision = d.id AND done = 0) FROM decisions d WHERE key = ?"
    rows = read(sql, (key,))
    delivered = [id_ for id_, is_open in rows if not is_open]
    return delivered, len(rows) - len(delivered)


def erase(connection: sqlite3.Connection, key: str, decisions: Sequence[int]) -> JournalErased:
    """Remove what belongs to a key; of its delivered decisions pipeline, message id and time stay."""
    ids = [(id_,) for id_ in decisions]
    deliveries = connection.executemany("DELETE FROM deliveries WHERE decision = ?", ids).rowcount
    connection.executemany(
        """UPDATE decisions SET key = '', rule = '', reason = 'erased', label = '', score = NULL, prediction_id = ''
           WHERE id = ?""",
        ids,
    )
    reviews = connection.execute("DELETE FROM reviews WHERE owner = ?", (key,)).rowcount
    named = ("|" + key, "|" + key)
    state = connection.execute("DELETE FROM state WHERE name = ? OR substr(name, -length(?)) = ?", (key, *named)).rowcount
    return JournalErased(decisions=len(ids), deliveries=max(deliveries, 0), reviews=reviews, state=state, left=0)


def json_text(value: object) -> str:
    """Compact JSON.

    Raises:
        InvalidInput: a value is not plain JSON, or text is no valid Unicode.
    """
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"cannot be stored as JSON: {error}") from error


def _columns(d: StoredDecision, now: float) -> tuple[Any, ...]:
    return (d.pipeline, d.message_id, d.key, d.time, d.rule, d.reason, d.label, float(d.score), d.prediction_id, now)


def _deliveries(decision: StoredDecision) -> tuple[tuple[Any, ...], ...]:
    return tuple((n, v.sink, v.key, json_text(v.payload)) for n, v in enumerate(decision.deliveries))


def _decisions(rows: Iterable[tuple[Any, ...]]) -> list[StoredDecision]:
    return [_decision(list(group)) for _, group in groupby(rows, key=lambda row: row[0])]


def _decision(rows: Rows) -> StoredDecision:
    pipeline, message_id, key, time, rule, reason, label, score, prediction_id = rows[0][1:10]
    return StoredDecision(
        pipeline=pipeline,
        message_id=message_id,
        key=key,
        time=time,
        rule=rule,
        reason=reason,
        label=label,
        score=float("nan") if score is None else score,
        prediction_id=prediction_id,
        deliveries=tuple(
            StoredDelivery(sink, delivery_key, msgspec.json.decode(payload), bool(done))
            for sink, delivery_key, payload, done in (row[10:] for row in rows)
            if sink is not None
        ),
    )
