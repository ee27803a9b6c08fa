# ruff: noqa: S608 (statements are put together from constants of this file; values are always bound)
"""The human review queue: durable, each case once, answered once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from inferloop.core.errors import Conflict, NotFound
from inferloop.data.database import Database
from inferloop.data.journal_records import ReviewItem
from inferloop.data.journal_tables import json_text

_COLUMNS = "key, pipeline, message_id, payload, time, prediction_id, label, by, done_at"
_ADD = """INSERT OR IGNORE INTO reviews (key, pipeline, message_id, payload, time, owner, prediction_id)
          SELECT :key, :pipeline, :message_id, :payload, :time, coalesce(max(d.key), ''),
                 coalesce(nullif(:prediction_id, ''), max(d.prediction_id), '')
          FROM decisions d WHERE d.pipeline = :pipeline AND d.message_id = :message_id"""


def add(database: Database, items: Sequence[ReviewItem]) -> int:
    """See `Journal.review_add`."""
    rows = [_values(item) for item in items]
    with database.write() as connection:
        return sum(connection.execute(_ADD, row).rowcount for row in rows)


def items(database: Database, pipeline: str | None, *, done: bool, limit: int) -> list[ReviewItem]:
    """See `Journal.review_list`."""
    state = "done_at IS NOT NULL" if done else "done_at IS NULL"
    sql = f"SELECT {_COLUMNS} FROM reviews WHERE {state} AND (? IS NULL OR pipeline = ?) ORDER BY number LIMIT ?"
    return [_item(row) for row in database.read(sql, (pipeline, pipeline, limit))]


def answer(database: Database, key: str, *, label: str, by: str) -> ReviewItem:
    """See `Journal.review_done`."""
    with database.write() as connection:
        row = connection.execute(f"SELECT {_COLUMNS} FROM reviews WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise NotFound(f"no review item {key!r}")
        item = _item(row)
        if item.done_at is not None:
            if item.label == label:
                return item
            raise Conflict(f"review item {key!r} was answered {item.label!r} by {item.by!r}")
        answered = (label, by, time.time(), key)
        connection.execute("UPDATE reviews SET label = ?, by = ?, done_at = ? WHERE key = ?", answered)
        return _item((*row[:6], *answered[:3]))


def _values(item: ReviewItem) -> dict[str, Any]:
    return {
        "key": item.key,
        "pipeline": item.pipeline,
        "message_id": item.message_id,
        "payload": json_text(item.payload),
        "time": item.time,
        "prediction_id": item.prediction_id,
    }


def _item(row: tuple[Any, ...]) -> ReviewItem:
    key, pipeline, message_id, payload, at, prediction_id, label, by, done_at = row
    return ReviewItem(key, pipeline, message_id, msgspec.json.decode(payload), at, prediction_id, label, by, done_at)
