"""One labeled row, and where its bytes are until somebody asks for them."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from inferloop.core.errors import InvalidInput, NotFound
from inferloop.core.sample import Sample
from inferloop.data.codecs.content import describe

MAX_MEMBER_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One sample with what is true of it.

    Attributes:
        label: the class; empty without one.
        group: what must not be torn apart by a split (a track, a speaker); empty without one.
        time: seconds since the epoch, or any number that orders the rows.
        weight: how much the row counts.
    """

    sample: Sample
    label: str
    group: str = ""
    time: float | None = None
    weight: float = 1.0


class Store(Protocol):
    """Files by name: a folder or a ZIP archive. May be used from any thread, and after a fork."""

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            NotFound: no file of that name.
            InvalidInput: damaged, or a name that leaves the folder.
        """
        ...

    def names(self) -> list[str]:
        """The names of all files, sorted."""
        ...


class Stored(NamedTuple):
    """A value that is read from its store when it is needed."""

    store: Store
    name: str

    def read(self) -> bytes:
        """See `Store.read`."""
        return self.store.read(self.name)


class Row(NamedTuple):
    """A row before its files are read.

    Attributes:
        values: one a field, in the order of the Dataset's fields; None is missing.
    """

    values: tuple[Any, ...]
    label: str = ""
    group: str = ""
    time: float | None = None
    weight: float = 1.0
    id: str = ""
    key: str = ""

    def example(self, fields: tuple[str, ...]) -> Example:
        """The row with its files read."""
        values = [value.read() if isinstance(value, Stored) else value for value in self.values]
        raw = values[0] if len(values) == 1 and isinstance(values[0], bytes) else b""
        named = {name: value for name, value in zip(fields, values, strict=True) if value is not None}
        sample = Sample(fields=named, id=self.id, key=self.key, time=self.time, raw=raw)
        return Example(sample, self.label, self.group, self.time, self.weight)


class Folder(Store):
    """The files below a directory."""

    def __init__(self, path: Path) -> None:
        self._root = path

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        path = self._root / name
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise InvalidInput(f"the file {name!r} is outside of {self._root}")
        try:
            return path.read_bytes()
        except OSError as error:
            raise NotFound(f"no file {name!r} in {self._root}") from error

    def names(self) -> list[str]:
        """See `Store.names`."""
        found = (path for path in self._root.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self._root).as_posix() for path in found)


class Archive(Store):
    """The members of a ZIP file, never unpacked to disk; one open handle a thread and process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._open()

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        archive = self._open()
        try:
            if archive.getinfo(name).file_size > MAX_MEMBER_BYTES:
                raise InvalidInput(f"{name!r} in {self._path} unpacks to more than {MAX_MEMBER_BYTES:,} bytes")
            return archive.read(name)
        except KeyError as error:
            raise NotFound(f"no file {name!r} in {self._path}") from error
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError) as error:
            raise InvalidInput(f"{name!r} in {self._path} is damaged: {error}") from error

    def names(self) -> list[str]:
        """See `Store.names`."""
        return sorted(name for name in self._open().namelist() if not name.endswith("/") and "__MACOSX/" not in name)

    def __getstate__(self) -> Path:
        return self._path

    def __setstate__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    def _open(self) -> zipfile.ZipFile:
        if getattr(self._local, "pid", None) != os.getpid():
            try:
                self._local.archive = zipfile.ZipFile(self._path)
            except OSError as error:
                raise NotFound(f"no file {self._path}") from error
            except zipfile.BadZipFile as error:
                with self._path.open("rb") as stream:
                    seen = describe(stream.read(512))
                raise InvalidInput(f"{self._path} is no ZIP archive, or a damaged one: {seen.split(',')[0]}") from error
            self._local.pid = os.getpid()
        archive: zipfile.ZipFile = self._local.archive
        return archive


def open_store(path: Path) -> Store:
    """The folder or ZIP archive at `path`.

    Raises:
        NotFound: there is none.
        InvalidInput: neither a folder nor a ZIP archive.
    """
    if not path.exists():
        raise NotFound(f"no folder or ZIP archive {path}")
    return Folder(path) if path.is_dir() else Archive(path)
