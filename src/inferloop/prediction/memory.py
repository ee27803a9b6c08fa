"""Gives freed memory back to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
_LARGE_BYTES = 8 * 1024 * 1024


def keep_large_apart() -> None:
    """Let every block of 8 MiB and more be a mapping of its own, which goes back to the system when it is freed.

    The C library of Linux otherwise raises that bound to the largest block it has seen, and what lies at the end of a thread's
    heap cannot be given back. For the whole process; costs nothing for smaller blocks. A second call does nothing new.
    """
    _call("mallopt", _MMAP_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Let the C library return what was freed; it would keep it for later otherwise. Blocks for milliseconds; any thread.

    Only the C library of Linux keeps as much as an unloaded model leaves behind; elsewhere this does nothing.
    """
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    function = _function(name)
    if function is not None:
        function(*arguments)


@cache
def _function(name: str) -> Callable[..., object] | None:
    if sys.platform != "linux":
        return None
    try:
        found: Callable[..., object] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # another C library
        return None
    return found
