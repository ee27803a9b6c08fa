# ruff: noqa: S608 (statements are put together from constants of this file; values are always bound)
"""What leaves the ledger by itself: inputs beyond the recent window, predictions by age, and the oldest when it grows too big.

Each transaction removes a bounded number of rows, so that writing goes on in between.
"""

from __future__ import annotations

from collections.abc import Callable

from inferloop.data.database import Database
from inferloop.data.ledger.policy import LedgerPolicy
from inferloop.data.ledger.tables import delete_predictions

_CHUNK_ROWS = 200
_CHUNKS = 200
_MODELS = """WITH RECURSIVE m (model) AS (SELECT min(model) FROM predictions UNION ALL
             SELECT (SELECT min(model) FROM predictions WHERE model > m.model) FROM m WHERE m.model IS NOT NULL)
             SELECT model FROM m WHERE model IS NOT NULL"""
_UNLABELED = "NOT EXISTS (SELECT 1 FROM feedback f WHERE f.row = p.row)"


def prune(database: Database, policy: LedgerPolicy, policy_of: Callable[[str], LedgerPolicy], *, now: float) -> int:
    """Apply window, age and size; returns the number of predictions removed.

    Args:
        database: the ledger.
        policy: its window and `max_bytes` bound the whole ledger.
        policy_of: the policy of a model, for its ages.
        now: seconds since the epoch.

    Raises:
        StorageError: the disk is full, or the database is locked or damaged; what was removed stays removed.
    """
    trim_window(database, policy)
    removed = sum(_by_age(database, model, policy_of(model), now) for (model,) in database.read(_MODELS))
    removed += _by_size(database, policy.max_bytes)
    _old_decisions(database, now - policy.max_age_s)
    database.give_back(pages=2000)
    return removed


def trim_window(database: Database, policy: LedgerPolicy) -> int:
    """Drop the oldest unlabeled inputs beyond `window_rows` and `window_bytes`; returns how many."""
    held = database.read("SELECT row, size FROM inputs WHERE kept = 0 ORDER BY row DESC")
    left = policy.window_bytes
    cutoff = held[policy.window_rows][0] if len(held) > policy.window_rows else 0
    for row, size in held[: policy.window_rows]:
        left -= size
        if left < 0:
            cutoff = row
            break
    if not cutoff:
        return 0
    with database.write(durable=False) as connection:
        return connection.execute("DELETE FROM inputs WHERE kept = 0 AND row <= ?", (cutoff,)).rowcount


def _by_age(database: Database, model: str, policy: LedgerPolicy, now: float) -> int:
    old = f"SELECT row FROM predictions p WHERE model = ? AND time < ? AND {_UNLABELED} LIMIT {_CHUNK_ROWS}"
    removed = _delete_while(database, old, (model, now - policy.max_age_s))
    if policy.labeled_max_age_s is not None:
        old = f"SELECT row FROM predictions p WHERE model = ? AND time < ? AND NOT ({_UNLABELED}) LIMIT {_CHUNK_ROWS}"
        removed += _delete_while(database, old, (model, now - policy.labeled_max_age_s))
    return removed


def _by_size(database: Database, max_bytes: int) -> int:
    removed = 0
    for condition in (_UNLABELED, "1"):
        oldest = f"SELECT row FROM predictions p WHERE {condition} ORDER BY row LIMIT {_CHUNK_ROWS}"
        removed += _delete_while(database, oldest, (), above_bytes=max_bytes)
    return removed


def _delete_while(database: Database, sql: str, parameters: tuple[object, ...], *, above_bytes: int = -1) -> int:
    removed = 0
    for _ in range(_CHUNKS):
        if database.used_bytes() <= above_bytes or not (rows := database.read(sql, parameters)):
            break
        with database.write(durable=False) as connection:
            delete_predictions(connection, [row for (row,) in rows])
        removed += len(rows)
    return removed


def _old_decisions(database: Database, before: float) -> None:
    sql = "DELETE FROM decisions WHERE time < ? AND row IN (SELECT row FROM decisions ORDER BY row LIMIT ?)"
    for _ in range(_CHUNKS):
        with database.write(durable=False) as connection:
            if connection.execute(sql, (before, _CHUNK_ROWS)).rowcount < _CHUNK_ROWS:
                return
