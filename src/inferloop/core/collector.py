"""The garbage collector of a process that works on many short-lived messages or requests."""

from __future__ import annotations

import gc

_COLLECT_AFTER = 50_000


def calm_collector() -> None:
    """What is loaded stays: it is not looked through again and again. Messages make no cycles, so few passes are enough."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 50)
