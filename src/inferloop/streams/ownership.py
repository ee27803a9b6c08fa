"""One run at a time: two runs of a pipeline would each hold half of the rule state, and both deliver."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from inferloop.core.errors import Conflict, StorageError


@contextlib.contextmanager
def owned(journal: Path, pipeline: str) -> Iterator[None]:
    """Hold the lock of a pipeline on a journal; the system releases it when the process dies.

    Raises:
        Conflict: another run holds it.
        StorageError: the lock file cannot be made.
    """
    path = journal.with_name(f"{journal.name}.{pipeline}.lock")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(f"lock {path}: {error.strerror}") from error
    try:
        if not _lock(file):
            raise Conflict(
                f"pipeline {pipeline!r} is running already on {journal}",
                hint=f"stop the other run, or give this one another name or --journal; `fuser {path}` tells who it is",
            )
        yield
    finally:
        os.close(file)


def _lock(file: int) -> bool:
    """Whether it was free; always, where there are no such locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
