"""The files that arrive in a directory, each a message.

Files are taken in the order of their change time (ctime), which the system sets when a file is written or moved in and nobody can
set back. So the last one that was acknowledged divides what is done from what is new, and a file that is still being
written is the newest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inferloop.core.errors import Unavailable
from inferloop.core.sample import Message
from inferloop.data.config import Duration, Size
from inferloop.streams.contexts import SourceContext
from inferloop.streams.sources.pulled import PulledSource

log = logging.getLogger(__name__)

_AT_ONCE = 16


class Arrived(NamedTuple):
    """One file, in the order in which files are taken."""

    changed_ns: int
    name: str
    modified_ns: int
    size: int


class DirectorySource(PulledSource):
    """Looks at a directory again and again; a network drive will do."""

    class Config(BaseModel):
        """Which files, and what becomes of those that are done.

        Attributes:
            pattern: of the names, e.g. `*.wav`; names that begin with a dot are left out.
            recursive: in the directories below, too.
            settle: a file is taken when it has not changed for so long; whoever moves files in makes this short.
            every: how often it looks.
            then: what is done with a file that is acknowledged: keep it, delete it, or move it to `done`.
            done: a directory on the same file system.
            max_size: a larger file is left where it is, with a line in the log.
            in_flight: files that may be under way.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: Path
        pattern: str = Field("*", min_length=1)
        recursive: bool = False
        settle: Annotated[Duration, Field(ge=0.01)] = 1.0
        every: Annotated[Duration, Field(ge=0.01)] = 1.0
        then: Literal["keep", "delete", "move"] = "keep"
        done: Path | None = None
        max_size: Annotated[Size, Field(ge=1)] = 64 * 10**6
        in_flight: int = Field(64, ge=1, le=65_535)

        @model_validator(mode="after")
        def _consistent(self) -> Self:
            if (self.then == "move") != (self.done is not None):
                raise ValueError("must have `done` with `then: move`, and only with it")
            return self

    caveat = (
        "a file is the same as long as name, size and modification time are; after the system's clock was set back, files that "
        "came meanwhile may be taken for done at the next start"
    )

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__(context.name, f"file://{config.path}", in_flight=config.in_flight)
        self._config = config
        self._context = context
        self._done: tuple[int, str] = _parsed(context.resume)
        self._taken: set[Arrived] = set()
        self._seen: dict[Arrived, float] = {}
        self._found: deque[Arrived] = deque()

    async def _connect(self) -> None:
        if not await asyncio.to_thread(self._config.path.is_dir):
            raise Unavailable(f"source {self._name!r}: no directory {self._config.path}")

    async def _fetch(self, most: int) -> Sequence[Message]:
        try:
            messages = await asyncio.to_thread(self._next, min(most, _AT_ONCE))
        except OSError as error:
            raise Unavailable(f"source {self._name!r}: {self._config.path}: {error.strerror or error}") from error
        if not messages and not self._found:
            await asyncio.sleep(self._config.every)
        return messages

    def _next(self, most: int) -> list[Message]:
        if not self._found:
            self._found.extend(self._settled(time.monotonic()))
        messages: list[Message] = []
        while self._found and len(messages) < most:
            file = self._found.popleft()
            self._taken.add(file)
            message = self._message(file)
            if message is not None:
                messages.append(message)
        return messages

    def _settled(self, now: float) -> list[Arrived]:
        """Files to be taken, in their order: none behind one that still changes."""
        there = sorted(self._scanned())
        self._taken.intersection_update(there)
        fresh = [file for file in there if file not in self._taken and (file.changed_ns, file.name) > self._done]
        self._seen = {file: self._seen.get(file, now) for file in fresh}
        ready: list[Arrived] = []
        for file in fresh:
            if now - self._seen[file] < self._config.settle:
                break
            ready.append(file)
        return ready

    def _scanned(self) -> Iterator[Arrived]:
        folders = [self._config.path]
        while folders:
            folder = folders.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        if self._config.recursive and Path(entry.path) != self._config.done:
                            folders.append(Path(entry.path))
                    elif fnmatch(entry.name, self._config.pattern):
                        yield from self._described(Path(entry.path))

    def _described(self, path: Path) -> Iterator[Arrived]:
        try:
            found = path.stat()
        except FileNotFoundError:  # moved away meanwhile
            return
        yield Arrived(found.st_ctime_ns, path.relative_to(self._config.path).as_posix(), found.st_mtime_ns, found.st_size)

    def _message(self, file: Arrived) -> Message | None:
        if file.size > self._config.max_size:
            facts = {"source": self._name, "file": file.name, "bytes": file.size, "max_size": self._config.max_size}
            log.error("file is too large, it is left where it is", extra=facts)
            return None
        try:
            payload = (self._config.path / file.name).read_bytes()
        except OSError as error:
            log.error("file cannot be read", extra={"source": self._name, "file": file.name, "reason": error.strerror})
            return None
        position = f"{file.name}:{file.modified_ns}:{file.size}"
        headers = {"path": file.name, "modified": f"{file.modified_ns / 1e9:.6f}"}
        return Message(payload, self._name, time.time(), topic=file.name, position=position, headers=headers, token=file)

    async def _confirm(self, messages: Sequence[Message]) -> None:
        files = [message.token for message in messages if isinstance(message.token, Arrived)]
        if self._config.then != "keep":
            await asyncio.to_thread(self._put_away, files)
        if files:
            self._done = max(self._done, max((file.changed_ns, file.name) for file in files))
            self._context.remember(json.dumps(self._done))

    def _put_away(self, files: Sequence[Arrived]) -> None:
        for file in files:
            path = self._config.path / file.name
            try:
                if self._config.done is None:
                    path.unlink(missing_ok=True)
                else:
                    target = self._config.done / file.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
            except OSError as error:
                facts = {"source": self._name, "file": file.name, "reason": error.strerror}
                log.warning("file that is done cannot be put away", extra=facts)

    async def _disconnect(self) -> None:
        """Nothing is open."""


def _parsed(resume: str) -> tuple[int, str]:
    if not resume:
        return 0, ""
    changed_ns, name = json.loads(resume)
    return int(changed_ns), str(name)
