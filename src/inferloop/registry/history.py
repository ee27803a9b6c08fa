"""Who was champion before: the way back through a model's history."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from inferloop.registry.records import Move
from inferloop.registry.ref import CHAMPION


def champions(moves: Sequence[Move], registered: Collection[int]) -> tuple[int | None, int | None]:
    """The champion, and the one that a rollback goes back to.

    A rollback undoes a promotion, so that the next one goes further back and never forth again.

    Args:
        moves: the history of a model, oldest first.
        registered: the versions that are still there.
    """
    reigns: list[int | None] = []
    for move in moves:
        if move.alias != CHAMPION:
            continue
        if move.kind == "rollback":
            while reigns and reigns[-1] != move.after:
                reigns.pop()
        elif move.kind == "remove":
            reigns.clear()
        else:
            reigns.append(move.after)
    if not reigns:
        return None, None
    now = reigns[-1]
    before = next((version for version in reversed(reigns[:-1]) if version in registered and version != now), None)
    return now, before
