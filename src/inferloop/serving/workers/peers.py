"""The workers of one server ask each other: a question and its answer, over a socket that only they can open.

FOLDER/123.sock     of the process 123; a question is one line of JSON, `{"ask": "statistics", "given": {...}}`, so is the answer
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger(__name__)

ASK_S = 5.0
"""A worker that has not answered by then is left out."""
_LINE = 64 << 20
_LONGEST_ADDRESS = 100
_FAILED = b'{"failed":true}\n'

Answer = Callable[..., Awaitable[Any]]


class Peers:
    """The other workers, and what they may ask of this one. Event loop only.

    Args:
        folder: shared by all workers and by nobody else.
        answers: by the name of the question; each takes what was given with it, and gives what JSON can say.
    """

    def __init__(self, folder: Path, answers: Mapping[str, Answer]) -> None:
        self._folder = folder
        self._answers = dict(answers)
        self._own = f"{os.getpid()}.sock"
        self._directory: int | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Answer from now on."""
        self._directory = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            new = self._folder / f"{self._own}.new"
            listening.bind(self._address(new.name))
            listening.listen()
            new.replace(self._folder / self._own)  # whoever finds it can connect: who cannot takes it for dead
            self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=_LINE)
        except BaseException:
            listening.close()
            raise

    async def aclose(self) -> None:
        """Answer no longer. A second call does nothing."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with suppress(FileNotFoundError):
                (self._folder / self._own).unlink()
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    async def ask(self, question: str, *, patience_s: float = ASK_S, **given: Any) -> list[Any]:
        """What all other workers answer, in no order; those that are gone, fail or take longer than `patience_s` are left out."""
        others = [path.name for path in self._folder.glob("*.sock") if path.name != self._own]
        line = msgspec.json.encode({"ask": question, "given": given}) + b"\n"
        found = await asyncio.gather(*(self._ask_one(other, line, patience_s) for other in others))
        return [answer["answer"] for answer in found if "answer" in answer]

    async def _ask_one(self, other: str, question: bytes, patience_s: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(patience_s):
                reader, writer = await asyncio.open_unix_connection(self._address(other), limit=_LINE)
                try:
                    writer.write(question)
                    found: dict[str, Any] = msgspec.json.decode(await reader.readline())
                finally:
                    writer.close()
        except (ConnectionRefusedError, FileNotFoundError):  # it has ended
            with suppress(FileNotFoundError):
                (self._folder / other).unlink()
            return {}
        except (OSError, TimeoutError, msgspec.DecodeError, ValueError) as error:
            log.warning("a worker did not answer another", extra={"worker": other, "error": str(error) or "too late"})
            return {}
        return found

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = msgspec.json.decode(await reader.readline())
            answer = await self._answers[question["ask"]](**question["given"])
            writer.write(msgspec.json.encode({"answer": answer}) + b"\n")
            await writer.drain()
        except OSError:  # who asked is gone
            pass
        except Exception:  # one question fails, the worker goes on
            log.exception("a question of another worker not answered")
            writer.write(_FAILED)
        finally:
            writer.close()

    def _address(self, name: str) -> str:
        """A path that fits into the address of a socket, however long the folder's is."""
        path = str(self._folder / name)
        if len(os.fsencode(path)) <= _LONGEST_ADDRESS or not Path("/proc/self/fd").exists():
            return path
        return f"/proc/self/fd/{self._directory}/{name}"
