"""The files of registered Bundles: on disk for good before the database names them."""

from __future__ import annotations

import os
from pathlib import Path

from inferloop.core.errors import StorageError


def sync_tree(root: Path) -> int:
    """Wait until all files below `root`, and the names of its parents, are on disk; returns the bytes of all files.

    Raises:
        StorageError: the disk is full or failing.
    """
    size_bytes = 0
    try:
        for path in sorted(root.rglob("*")):
            size_bytes += path.stat().st_size if path.is_file() else 0
            _sync(path)
        for directory in (root, root.parent, root.parent.parent):
            _sync(directory)
    except OSError as error:
        raise StorageError(f"cannot write {root}: {error.strerror}") from error
    return size_bytes


def highest_number(directory: Path) -> int:
    """The highest number that names something in `directory`; 0 if there is none."""
    if not directory.is_dir():
        return 0
    return max((int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()), default=0)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot sync a directory
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
