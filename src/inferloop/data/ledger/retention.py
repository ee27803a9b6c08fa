# ruff: noqa: S608 (statements are put together from constants of this file; values are always bound)
"""What leaves the ledger by itself: inputs beyond the recent window, predictions by age, and the oldest when it grows too big.

Each transaction removes a bounded number of rows, so that other processes write in between.
"""

from __future__ import annotations

from collections.abc import Callable

from inferloop.data.database import Database
from inferloop.data.ledger.policy import LedgerPolicy
from inferloop.data.ledger.tables import delete_predictions

_CHUNK_ROWS = 200
_MODELS = """WITH RECURSIVE m (model) AS (SELECT min(model) FROM predictions UNION ALL
             SELECT (SELECT min(model) FROM predictions WHERE model > m.model) FROM m WHERE m.model IS NOT NULL)
             SELECT model FROM m WHERE model IS NOT NULL"""
_UNLABELED = "NOT EXISTS (SELECT 1 FROM feedback f WHERE f.row = p.row)"


def _always() -> bool:
    return True


def prune(
    database: Database,
    policy: LedgerPolicy,
    policy_of: Callable[[str], LedgerPolicy],
    *,
    now: float,
    go_on: Callable[[], bool] = _always,
) -> int:
    """Apply window, age and size; returns the number of predictions removed.

    Args:
        database: the ledger.
        policy: its window and `max_bytes` bound the whole ledger.
        policy_of: the policy of a model, for its ages.
        now: seconds since the epoch.
        go_on: asked before every few rows; what is left when it says no is found again by the next call.

    Raises:
        StorageError: the disk is full, or the database is locked or damaged; what was removed stays removed.
    """
    trim_window(database, policy, go_on=go_on)
    removed = 0
    for (model,) in database.read(_MODELS):
        removed += _by_age(database, model, policy_of(model), now, go_on)
    removed += _by_size(database, policy.max_bytes, go_on)
    _old_decisions(database, now - policy.max_age_s, go_on)
    database.give_back(pages=_CHUNK_ROWS)
    return removed


def trim_window(database: Database, policy: LedgerPolicy, *, go_on: Callable[[], bool] = _always) -> int:
    """Drop the oldest unlabeled inputs beyond `window_rows` and `window_bytes`; returns how many."""
    sql = "SELECT row, size FROM inputs WHERE kept = 0 ORDER BY row DESC LIMIT ?"
    held = database.read(sql, (policy.window_rows + 1,))
    left = policy.window_bytes
    cutoff = held[policy.window_rows][0] if len(held) > policy.window_rows else 0
    for row, size in held[: policy.window_rows]:
        left -= size
        if left < 0:
            cutoff = row
            break
    if not cutoff:
        return 0
    old = "DELETE FROM inputs WHERE row IN (SELECT row FROM inputs WHERE kept = 0 AND row <= ? LIMIT ?)"
    dropped = 0
    while go_on():
        with database.write(durable=False) as connection:
            count = connection.execute(old, (cutoff, _CHUNK_ROWS)).rowcount
        dropped += count
        if count < _CHUNK_ROWS:
            break
    return dropped


def _by_age(database: Database, model: str, policy: LedgerPolicy, now: float, go_on: Callable[[], bool]) -> int:
    old = f"SELECT row FROM predictions p WHERE model = ? AND time < ? AND {_UNLABELED} LIMIT {_CHUNK_ROWS}"
    removed = _delete_while(database, old, (model, now - policy.max_age_s), go_on)
    if policy.labeled_max_age_s is not None:
        old = f"SELECT row FROM predictions p WHERE model = ? AND time < ? AND NOT ({_UNLABELED}) LIMIT {_CHUNK_ROWS}"
        removed += _delete_while(database, old, (model, now - policy.labeled_max_age_s), go_on)
    return removed


def _by_size(database: Database, max_bytes: int, go_on: Callable[[], bool]) -> int:
    removed = 0
    for condition in (_UNLABELED, "1"):
        oldest = f"SELECT row FROM predictions p WHERE {condition} ORDER BY row LIMIT {_CHUNK_ROWS}"
        removed += _delete_while(database, oldest, (), go_on, above_bytes=max_bytes)
    return removed


def _delete_while(
    database: Database, sql: str, parameters: tuple[object, ...], go_on: Callable[[], bool], *, above_bytes: int = -1
) -> int:
    removed = 0
    while go_on() and database.used_bytes() > above_bytes and (rows := database.read(sql, parameters)):
        with database.write(durable=False) as connection:
            delete_predictions(connection, [row for (row,) in rows])
        removed += len(rows)
    return removed


def _old_decisions(database: Database, before: float, go_on: Callable[[], bool]) -> None:
    sql = "DELETE FROM decisions WHERE time < ? AND row IN (SELECT row FROM decisions ORDER BY row LIMIT ?)"
    while go_on():
        with database.write(durable=False) as connection:
            if connection.execute(sql, (before, _CHUNK_ROWS)).rowcount < _CHUNK_ROWS:
                return
