"""Files that requests brought along, each model's in a directory of its own beside the repository, never in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from inferloop.core.errors import InvalidInput, StorageError
from inferloop.prediction.repository.paths import inside


class Uploads:
    """One set of files for a model at most, and until `settle` the one before it. One thread at a time."""

    def __init__(self) -> None:
        self._roots: dict[str, Path | None] = {}
        self._before: dict[str, Path | None] = {}

    def put(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Write the files of a model below `NAME` of a new directory, which is returned; all or none.

        Raises:
            InvalidInput: a path that leads elsewhere, or two that cannot stand side by side.
            StorageError: they cannot be written.
        """
        try:
            root = Path(tempfile.mkdtemp(prefix="inferloop-upload-")).resolve()
        except OSError as error:
            raise StorageError(f"no room for the files of {name!r}: {error.strerror}") from error
        try:
            (root / name).mkdir()
            for relative, content in files.items():
                _write(inside(root / name, relative), content)
        except BaseException:
            _remove(root)
            raise
        self._replace(name, root)
        return root

    def leave(self, name: str) -> None:
        """The model is to be that of the repository again."""
        self._replace(name, None)

    def settle(self, name: str, *, granted: bool) -> None:
        """Remove the files that are not used: those from before, or if it is not granted the new ones. Once for each change."""
        if name in self._before:
            before = self._before.pop(name)
            if granted:
                _remove(before)
            else:
                _remove(self._roots[name])
                self._roots[name] = before

    def drop(self, name: str) -> None:
        """Remove all files of a model."""
        self.settle(name, granted=True)
        _remove(self._roots.pop(name, None))

    def close(self) -> None:
        """Remove everything. A second call does nothing."""
        for name in list(self._roots):
            self.drop(name)

    def _replace(self, name: str, root: Path | None) -> None:
        self.settle(name, granted=True)
        self._before[name] = self._roots.get(name)
        self._roots[name] = root


def _remove(root: Path | None) -> None:
    if root is not None:
        shutil.rmtree(root, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except FileExistsError as error:
        raise InvalidInput(f"{path.name!r} is both a file and a directory") from error
    except OSError as error:
        raise StorageError(f"cannot write {path.name!r}: {error.strerror}") from error
