"""A line in a JSONL file, on disk before it counts as delivered."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from inferloop.core.errors import Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.streams.contexts import SinkContext
from inferloop.streams.sinks.rotation import Rotation


class FileSink(Sink):
    """Appends; a batch is one write and one fsync."""

    class Config(BaseModel):
        """Where to and what.

        Attributes:
            json: the line; a text that starts with `=` is an expression. Without it: identity, decision and fields.
            rotate: when the file is renamed and begun anew; `pipeline redrive` reads only the file itself.
            fsync: whether a line must be on disk before it counts; without it only the process may die, not the machine.
        """

        model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

        path: Path
        line: Any = Field(None, alias="json")
        rotate: Rotation | None = None
        fsync: bool = True

    payload_key = "json"
    idempotent = False
    batched = True

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._name = context.name
        self._file: int | None = None

    async def open(self) -> None:
        """See `Sink.open`."""
        await asyncio.to_thread(self._open)

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        await asyncio.to_thread(self._append, b"".join(msgspec.json.encode(item.payload) + b"\n" for item in deliveries))

    async def close(self) -> None:
        """See `Sink.close`."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _open(self) -> None:
        """Open for appending; half a line that a crash left is ended, so that it spoils no other."""
        try:
            self._config.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._config.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                os.write(file, b"\n")
        except OSError as error:
            raise Unavailable(f"sink {self._name!r}: {self._config.path}: {error.strerror}") from error
        if self._file is not None:
            os.close(self._file)
        self._file = file

    def _moved(self, file: int) -> bool:
        """Whether the path names another file by now, or none: somebody rotated it."""
        try:
            return not os.path.samestat(self._config.path.stat(), os.fstat(file))
        except FileNotFoundError:
            return True

    def _rotated(self, file: int, added: int) -> int:
        """The file to append to: a new one where this one is full or of another time."""
        rotate, found = self._config.rotate, os.fstat(file)
        if rotate is None or not rotate.due(found, added):
            return file
        try:
            rotate.rename(self._config.path, found.st_mtime)
            self._open()
            rotate.prune(self._config.path)
        except OSError as error:
            raise Unavailable(f"sink {self._name!r}: {self._config.path}: {error.strerror}") from error
        return self._file if self._file is not None else file

    def _append(self, lines: bytes) -> None:
        if self._file is None or self._moved(self._file):
            self._open()
        file = self._file
        if file is None:
            return
        file = self._rotated(file, len(lines))
        before = os.fstat(file).st_size
        try:
            written = 0
            while written < len(lines):
                written += os.write(file, lines[written:])
            if self._config.fsync:
                os.fsync(file)
        except OSError as error:
            with contextlib.suppress(OSError):  # a pipe cannot be shortened
                os.truncate(file, before)  # a full disk took part of it: all of it comes again
            raise Unavailable(f"sink {self._name!r}: {self._config.path}: {error.strerror}") from error
