# ruff: noqa: S608 (statements are put together from constants of this file; values are always bound)
"""The tables of the ledger and the statements on them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from inferloop.data.database import Schema
from inferloop.data.ledger.policy import LedgerPolicy, StoreInputs
from inferloop.data.ledger.records import DecidedRow, DecisionRecord, Erased, FeedbackRecord, PredictionRecord
from inferloop.data.ledger.stored import StoredPrediction, json_text, restored, restored_decision

Rows = list[tuple[Any, ...]]
Read = Callable[[str, Sequence[Any]], Rows]

SCHEMA = Schema(
    kind="ledger",
    application_id=0x494C6C65,
    migrations=(
        (
            """CREATE TABLE predictions (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time REAL NOT NULL,
               model TEXT NOT NULL, version INTEGER NOT NULL, key TEXT NOT NULL, label TEXT NOT NULL, score REAL,
               scores TEXT NOT NULL, source TEXT NOT NULL, latency_s REAL)""",
            "CREATE INDEX predictions_model ON predictions (model, time)",
            """CREATE TABLE inputs (row INTEGER PRIMARY KEY, kind TEXT NOT NULL, body BLOB, embedding BLOB,
               size INTEGER NOT NULL, kept INTEGER NOT NULL)""",
            "CREATE INDEX inputs_window ON inputs (row, size) WHERE kept = 0",
            """CREATE TABLE feedback (number INTEGER PRIMARY KEY, row INTEGER NOT NULL, label TEXT NOT NULL, by TEXT NOT NULL,
               time REAL NOT NULL)""",
            "CREATE INDEX feedback_row ON feedback (row)",
            """CREATE TABLE decisions (row INTEGER PRIMARY KEY, message_id TEXT NOT NULL, prediction_id TEXT NOT NULL,
               pipeline TEXT NOT NULL, rule TEXT NOT NULL, sinks TEXT NOT NULL, time REAL NOT NULL)""",
        ),
        (
            "ALTER TABLE decisions ADD COLUMN reason TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE decisions ADD COLUMN key TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE decisions ADD COLUMN event_time REAL",
            "ALTER TABLE decisions ADD COLUMN score REAL",
            "ALTER TABLE decisions ADD COLUMN fields TEXT NOT NULL DEFAULT ''",
        ),
    ),
)

_COLUMNS = (
    "p.id, p.time, p.model, p.version, p.key, p.label, p.score, p.scores, p.source, p.latency_s, i.kind, i.body, i.embedding"
)
_FROM = "FROM predictions p LEFT JOIN inputs i ON i.row = p.row"

_ROWS_AT_ONCE = 50
_INSERT = "INSERT INTO predictions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_MANY = _INSERT + ", (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)" * (_ROWS_AT_ONCE - 1)


def insert_predictions(
    connection: sqlite3.Connection, predictions: Sequence[StoredPrediction], policy_of: Callable[[str], LedgerPolicy]
) -> None:
    """Add predictions, and of their inputs what the policy lets stay."""
    (first,) = connection.execute("SELECT coalesce(max(row), 0) + 1 FROM predictions").fetchone()
    _insert_rows(connection, [prediction[:10] for prediction in predictions])
    inputs = [
        _input(row, prediction, policy_of(prediction[2]))
        for row, prediction in enumerate(predictions, first)
        if prediction[11] or prediction[12]
    ]
    connection.executemany("INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?)", inputs)


def _insert_rows(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    # Each statement takes and gives back the interpreter lock, which under load costs more than the insertion of a row.
    whole = len(rows) - len(rows) % _ROWS_AT_ONCE
    for start in range(0, whole, _ROWS_AT_ONCE):
        connection.execute(_INSERT_MANY, list(chain.from_iterable(rows[start : start + _ROWS_AT_ONCE])))
    connection.executemany(_INSERT, rows[whole:])


def insert_decisions(connection: sqlite3.Connection, records: Sequence[DecisionRecord]) -> None:
    """Add decisions."""
    connection.executemany("INSERT INTO decisions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_decision, records))


def _decision(r: DecisionRecord) -> tuple[Any, ...]:
    fields = json_text(r.fields) if r.fields else ""
    sinks = json_text(list(r.sinks)) if r.sinks else "[]"
    return (r.message_id, r.prediction_id, r.pipeline, r.rule, sinks, r.time, r.reason, r.key, r.event_time, r.score, fields)


def page_of_decided(
    read: Read, after: int, pipeline: str, since: float, limit: int, *, inputs: bool
) -> tuple[int, list[DecidedRow]]:
    """Up to `limit` decisions of a pipeline behind row number `after`, in the order of writing, and the number of the last."""
    kept = "i.kind, i.body" if inputs else "NULL, NULL"
    sql = f"""SELECT d.message_id, d.prediction_id, d.pipeline, d.rule, d.sinks, d.time, d.reason, d.key, d.event_time, d.score,
              d.fields, p.label, p.score, p.scores, {kept},
              (SELECT f.label FROM feedback f WHERE f.row = p.row ORDER BY f.number DESC LIMIT 1), d.row
              FROM decisions d LEFT JOIN predictions p ON p.id = d.prediction_id {"LEFT JOIN inputs i ON i.row = p.row" * inputs}
              WHERE d.row > ? AND d.pipeline = ? AND d.time >= ? ORDER BY d.row LIMIT ?"""
    rows = read(sql, (after, pipeline, since, limit))
    return (rows[-1][-1] if rows else after), [restored_decision(row[:-1]) for row in rows]


def insert_feedback(connection: sqlite3.Connection, records: Iterable[FeedbackRecord]) -> list[str]:
    """Add feedback to predictions that are there, and keep their inputs for good; returns the ids of those that are not."""
    sql = "INSERT INTO feedback (row, label, by, time) SELECT row, ?, ?, ? FROM predictions WHERE id = ?"
    unknown = []
    for record in records:
        if connection.execute(sql, (record.label, record.by, record.time, record.prediction_id)).rowcount:
            keep_input(connection, record.prediction_id)
        else:
            unknown.append(record.prediction_id)
    return unknown


def keep_input(connection: sqlite3.Connection, prediction_id: str) -> None:
    """Take an input out of the recent window."""
    connection.execute(
        "UPDATE inputs SET kept = 1 WHERE row = (SELECT row FROM predictions WHERE id = ?) AND kept = 0", (prediction_id,)
    )


def unknown_ids(read: Read, ids: Sequence[str]) -> list[str]:
    """Those of `ids` that are no prediction, in their order."""
    known = {row[0] for row in read("SELECT id FROM predictions WHERE id IN (SELECT value FROM json_each(?))", (json_text(ids),))}
    return [id_ for id_ in ids if id_ not in known]


def select_predictions(read: Read, ids: Sequence[str]) -> dict[str, PredictionRecord]:
    """Predictions by id."""
    sql = f"SELECT {_COLUMNS} {_FROM} WHERE p.id IN (SELECT value FROM json_each(?))"
    return {row[0]: restored(row) for row in read(sql, (json_text(ids),))}


def page_of_predictions(read: Read, after: int, model: str | None, limit: int) -> tuple[int, list[PredictionRecord]]:
    """Up to `limit` predictions behind row number `after`, in the order of writing, and the number of the last."""
    sql = f"SELECT {_COLUMNS}, p.row {_FROM} WHERE p.row > ? AND (? IS NULL OR p.model = ?) ORDER BY p.row LIMIT ?"
    rows = read(sql, (after, model, model, limit))
    return (rows[-1][-1] if rows else after), [restored(row[:-1]) for row in rows]


def select_truth(read: Read, ids: Sequence[str]) -> dict[str, FeedbackRecord]:
    """The last feedback of each of these predictions, by prediction id."""
    sql = """SELECT p.id, f.label, f.by, f.time FROM predictions p JOIN feedback f ON f.row = p.row
             WHERE p.id IN (SELECT value FROM json_each(?)) ORDER BY f.number"""
    return {row[0]: FeedbackRecord(*row) for row in read(sql, (json_text(ids),))}


def labeled_ids(read: Read, model: str, since: float | None, limit: int | None) -> list[tuple[str, str, float]]:
    """Id, last truth and its time of labeled predictions, oldest feedback first, the newest `limit` of them."""
    sql = """SELECT p.id, f.label, f.time FROM feedback f JOIN predictions p ON p.row = f.row
             WHERE p.model = ? AND f.number = (SELECT max(number) FROM feedback WHERE row = f.row) AND f.time >= ?
             ORDER BY f.time DESC, f.number DESC LIMIT ?"""
    rows = read(sql, (model, float("-inf") if since is None else since, -1 if limit is None else limit))
    return [(id_, label, time) for id_, label, time in reversed(rows)]


def predictions_of_key(read: Read, key: str) -> Rows:
    """Row number and id of a key's predictions; looks at every row."""
    return read("SELECT row, id FROM predictions WHERE key = ?", (key,))


def decisions_of(read: Read, key: str, predictions: Rows) -> Rows:
    """Row number and message id of the decisions of a key, or that rest on these predictions; looks at every row."""
    sql = "SELECT row, message_id FROM decisions WHERE key = ? OR prediction_id IN (SELECT value FROM json_each(?))"
    return read(sql, (key, json_text([id_ for _, id_ in predictions])))


def erase(connection: sqlite3.Connection, predictions: Rows, decisions: Rows) -> Erased:
    """Remove predictions, with inputs and feedback, and decisions that were found before the transaction began.

    A row number that belongs to another id by now is left alone: numbers of removed rows are given again.
    """
    removed = delete_predictions(connection, _still(connection, "predictions", "id", predictions))
    return replace(removed, decisions=delete(connection, "decisions", _still(connection, "decisions", "message_id", decisions)))


def _still(connection: sqlite3.Connection, table: str, column: str, found: Rows) -> list[int]:
    sql = f"""SELECT t.row FROM json_each(?) j JOIN {table} t ON t.row = json_extract(j.value, '$[0]')
              WHERE t.{column} = json_extract(j.value, '$[1]')"""
    return [row for (row,) in connection.execute(sql, (json_text(found),))]


def delete(connection: sqlite3.Connection, table: str, rows: Sequence[int]) -> int:
    """Remove rows of `predictions`, `inputs`, `feedback` or `decisions` by row number; returns how many there were."""
    return connection.execute(f"DELETE FROM {table} WHERE row IN (SELECT value FROM json_each(?))", (json_text(rows),)).rowcount


def delete_predictions(connection: sqlite3.Connection, rows: Sequence[int]) -> Erased:
    """Remove predictions by row number, with inputs and feedback."""
    removed = {table: delete(connection, table, rows) for table in ("feedback", "inputs", "predictions")}
    return Erased(**removed, decisions=0)


def _input(row: int, prediction: StoredPrediction, policy: LedgerPolicy) -> tuple[Any, ...]:
    kind, body, embedding = prediction[10:]
    if policy.store is StoreInputs.HASH:
        kind, body, embedding = "sha256", body and hashlib.sha256(body).digest(), None
    return (row, kind, body, embedding, len(body or b"") + len(embedding or b""), int(policy.keeps(prediction[0])))
