"""The lines of a JSONL file or the rows of a CSV file, resumable by position.

A position is the offset of a line and a checksum of it, `OFFSET:CRC`: a file that was replaced is noticed and read anew,
a line that stands where it stood keeps its identity.
"""

from __future__ import annotations

import asyncio
import csv
import json
import logging
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field

from inferloop.core.errors import InvalidInput, NotFound, Unavailable
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext

log = logging.getLogger(__name__)

_CHUNK_LINES = 256
_POLL_S = 0.2


class FileSource(Source):
    """Reads one file from the last acknowledged line on; ends at its end, or waits for more with `follow`."""

    class Config(BaseModel):
        """The file, and whether to wait for new lines.

        Attributes:
            format: by the suffix of `path` when it is left out: `.csv` is CSV, everything else JSONL.
            follow: wait for more at the end; a file that was rotated or emptied meanwhile is read from its start.
            max_line: bytes of one line; a longer one ends the source with an error.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: Path
        format: Literal["jsonl", "csv"] | None = None
        follow: bool = False
        max_line: int = Field(16 * 2**20, ge=1)

    durable = True
    replayable = True
    ordered = True

    def __init__(self, config: Config, context: SourceContext) -> None:
        self._config = config
        self._context = context
        self._file: BinaryIO | None = None
        self._csv = config.format == "csv" or (config.format is None and config.path.suffix == ".csv")
        self._headers: dict[str, str] = {}

    @property
    def caveat(self) -> str:
        """What `pipeline check` says of it beside the guarantee."""
        if not self._config.follow:
            return ""
        return "after a rotation, a line without an id that equals the one at the same place before counts as come again"

    async def open(self) -> None:
        """See `Source.open`. A file that is not there yet is waited for with `follow`, else it is NotFound."""
        while not self._config.path.is_file():
            if not self._config.follow:
                raise NotFound(f"source {self._context.name!r}: no file {self._config.path}")
            log.warning("file not there yet", extra={"source": self._context.name, "path": str(self._config.path)})
            await asyncio.sleep(_POLL_S * 5)
        opening = asyncio.ensure_future(asyncio.to_thread(self._open))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:  # a thread cannot be cancelled
            await asyncio.wait([opening])
            await self.close()
            raise

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        while True:
            messages = await asyncio.to_thread(self._lines)
            if messages or not self._config.follow:
                return messages
            if not await asyncio.to_thread(self._reopened):
                await asyncio.sleep(_POLL_S)

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`."""
        if messages:
            self._context.remember(messages[-1].position)

    async def close(self) -> None:
        """See `Source.close`."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> BinaryIO:
        """The file behind its header."""
        file = self._config.path.open("rb")
        if self._csv:
            header = file.readline(self._config.max_line).decode("utf-8-sig", "replace")
            columns = next(csv.reader([header]), [])
            self._headers = {"csv-columns": json.dumps(columns)}
        return file

    def _open(self) -> None:
        file = self._opened()
        start = file.tell()
        if self._context.resume and not _skip_to(file, self._context.resume):
            log.warning("file was replaced, reading it anew", extra={"source": self._context.name})
            file.seek(start)
        self._file = file

    def _reopened(self) -> bool:
        """Start anew if the path names another file by now, or this one became shorter than what was read of it."""
        file = self._file
        if file is None:
            return False
        try:
            now = self._config.path.stat()
        except FileNotFoundError:  # moved away, the next one is not there yet
            return False
        if os.path.samestat(now, os.fstat(file.fileno())) and now.st_size >= file.tell():
            return False
        log.warning("file was rotated, reading it from its start", extra={"source": self._context.name})
        file.close()
        self._file = self._opened()
        return True

    def _lines(self) -> list[Message]:
        file = self._file
        if file is None:
            raise Unavailable(f"source {self._context.name!r} is closed")
        messages: list[Message] = []
        now = time.time()
        while len(messages) < _CHUNK_LINES:
            offset = file.tell()
            line, whole = self._record(file)
            if not whole and len(line) > self._config.max_line:
                if not messages:
                    limit = self._config.max_line
                    raise InvalidInput(f"source {self._context.name!r}: the line at byte {offset} is longer than {limit} bytes")
                file.seek(offset)  # those before it first
                break
            if not whole and (self._config.follow or not line):
                file.seek(offset)  # half a line: the writer is not done with it
                break
            if line.strip():
                messages.append(self._message(line, offset, now))
        return messages

    def _record(self, file: BinaryIO) -> tuple[bytes, bool]:
        """The next line, or in CSV the next record, whose quoted fields may hold line breaks; and whether all of it is there."""
        parts: list[bytes] = []
        size, quotes = 0, 0
        while True:
            part = file.readline(self._config.max_line + 1 - size)
            parts.append(part)
            size, quotes = size + len(part), quotes + part.count(b'"')
            whole = part.endswith(b"\n") and not (self._csv and quotes % 2)
            if whole or not part.endswith(b"\n") or size > self._config.max_line:
                return b"".join(parts), whole

    def _message(self, line: bytes, offset: int, now: float) -> Message:
        payload = line.rstrip(b"\r\n")
        position = f"{offset}:{zlib.crc32(payload):08x}"
        name = self._context.name
        return Message(payload, name, now, topic=self._config.path.name, position=position, headers=self._headers)


def _skip_to(file: BinaryIO, position: str) -> bool:
    """Go behind the line of a position; false if another line stands there."""
    offset, _, checksum = position.partition(":")
    if not offset.isdecimal():
        return False
    file.seek(int(offset))
    line = file.readline()
    if f"{zlib.crc32(line.rstrip(bytes((13, 10)))):08x}" == checksum:
        return True
    return _skip_record(file, int(offset), checksum, line)


def _skip_record(file: BinaryIO, offset: int, checksum: str, record: bytes) -> bool:
    """The same for a CSV record of several lines."""
    quotes = record.count(b'"')
    parts = [record]
    while quotes % 2:
        parts.append(file.readline())
        if not parts[-1]:
            return False
        quotes += parts[-1].count(b'"')
    record = b"".join(parts)
    file.seek(offset + len(record))
    return f"{zlib.crc32(record.rstrip(bytes((13, 10)))):08x}" == checksum
