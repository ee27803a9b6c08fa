"""Which models requests have loaded and unloaded: written down once, carried out by every worker, also by those to come.

    load M ── a file 00000007.wish ── every worker reads it and does it, in the order of the numbers

The worker that was asked does it, tells the others to do the same, and answers when they have: whoever is asked next knows the
model. One that could not be reached follows within `POLL_S` seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from inferloop.core.errors import InferloopError
from inferloop.prediction.catalog import NO_OVERRIDE, Changes, Override
from inferloop.prediction.prediction import new_id
from inferloop.serving.workers.peers import Peers

log = logging.getLogger(__name__)

POLL_S = 0.2
ASK = "wishes"
PATIENCE_S = 60.0
"""A worker that has not loaded a model by then is not waited for."""


class Wish(msgspec.Struct, frozen=True):
    """One request to change what is open.

    Attributes:
        name: the model's; empty for a wish that was taken back.
        mark: tells the worker that wrote it down which of its requests waits for what comes of it.
    """

    name: str
    loaded: bool
    dependents: bool = False
    config: str = ""
    files: dict[str, bytes] = {}
    mark: str = ""


class Wishes(Changes):
    """The wishes of all workers of one server, on top of this worker's Router. Event loop only.

    Args:
        router: carries them out in this process.
        folder: shared by all workers.
        peers: the other workers; None leaves it to them to follow.
    """

    def __init__(self, router: Changes, folder: Path, *, peers: Peers | None = None, poll_s: float = POLL_S) -> None:
        self._router = router
        self._book = Book(folder)
        self._peers = peers
        self._poll_s = poll_s
        self._done = 0
        self._outcomes: dict[str, Exception | None] = {}
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Do what was wished for before this worker came, then follow."""
        await self.catch_up()
        self._task = asyncio.create_task(self._follow(), name="inferloop-wishes")

    async def aclose(self) -> None:
        """Follow no longer. A second call does nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def load(self, name: str, *, override: Override = NO_OVERRIDE) -> None:
        """See `Router.load`; the other workers load it too."""
        await self._wish(Wish(name, loaded=True, config=override.config, files=dict(override.files)))

    async def unload(self, name: str, *, dependents: bool = False) -> None:
        """See `Router.unload`; the other workers unload it too."""
        await self._wish(Wish(name, loaded=False, dependents=dependents))

    async def _wish(self, wish: Wish) -> None:
        wish = msgspec.structs.replace(wish, mark=new_id())
        self._outcomes[wish.mark] = None
        try:
            number = await asyncio.to_thread(self._book.add, wish)
            await self.catch_up()
            error = self._outcomes[wish.mark]
        finally:
            del self._outcomes[wish.mark]
        if error is not None:
            await asyncio.to_thread(self._book.take_back, number)
            raise error
        await asyncio.to_thread(self._book.settle, number)
        if self._peers is not None:
            await self._peers.ask(ASK, patience_s=PATIENCE_S)

    async def catch_up(self) -> None:
        """Do all that is written, in order; whoever comes first does the wishes of the others too."""
        async with self._turn:
            for number, wish in await asyncio.to_thread(lambda: list(self._book.after(self._done))):
                error = await self._do(wish)
                self._done = number
                if wish.mark in self._outcomes:
                    self._outcomes[wish.mark] = error
                elif isinstance(error, InferloopError):
                    log.warning("model of another worker's request not changed", extra={"model": wish.name, "error": str(error)})
                elif error is not None:
                    log.error("model of another worker's request not changed", extra={"model": wish.name}, exc_info=error)

    async def _do(self, wish: Wish) -> Exception | None:
        try:
            if not wish.name:  # taken back
                return None
            if wish.loaded:
                await self._router.load(wish.name, override=Override(wish.config, wish.files))
            else:
                await self._router.unload(wish.name, dependents=wish.dependents)
        except Exception as error:  # a wish that breaks something must not hold up those after it
            return error
        return None

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.catch_up()
            except Exception:  # the follower outlives whatever one wish does
                log.exception("wishes not followed")


class Book:
    """Numbered files. Any thread, any number of processes; a number is given once, by whoever links its file first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, wish: Wish) -> int:
        """Write one down under the next number."""
        new = self._draft(wish)
        number = max(self._numbers(), default=0)
        try:
            while True:
                number += 1
                try:
                    os.link(new, self._path(number))
                    break
                except FileExistsError:
                    continue
        finally:
            new.unlink()
        return number

    def settle(self, number: int) -> None:
        """Forget what was wished for the same model before: this wish came true, and workers to come need no other."""
        wishes = dict(self.after(0))
        for earlier, other in wishes.items():
            if earlier < number and number in wishes and other.name == wishes[number].name:
                self._path(earlier).unlink(missing_ok=True)
        self._forget_blanks()

    def _forget_blanks(self) -> None:
        """Those that were taken back, but for the highest number of all."""
        wishes = list(self.after(0))
        for number, wish in wishes[:-1]:
            if not wish.name:
                self._path(number).unlink(missing_ok=True)

    def take_back(self, number: int) -> None:
        """Forget one that did not come true, so that workers to come do what was wished before.

        Its number stays taken until a higher one is: no pile of files grows.
        """
        self._draft(Wish("", loaded=False)).replace(self._path(number))
        self._forget_blanks()

    def after(self, number: int) -> Iterator[tuple[int, Wish]]:
        """Those above a number, in order."""
        for found in sorted(self._numbers()):
            if found > number:
                try:
                    yield found, msgspec.json.decode(self._path(found).read_bytes(), type=Wish)
                except FileNotFoundError:  # a later wish took its place
                    continue

    def _draft(self, wish: Wish) -> Path:
        new = self._folder / f"wish.{os.getpid()}.{threading.get_ident()}.new"
        new.write_bytes(msgspec.json.encode(wish))
        return new

    def _numbers(self) -> list[int]:
        return [int(path.stem) for path in self._folder.glob("[0-9]*.wish")]

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.wish"
