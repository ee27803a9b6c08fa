"""A PostgreSQL cluster of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext
from support.own_server import OwnServer
from support.stream_worlds import SinkWorld


class Postgres(OwnServer):
    """One server with the database `postgres`; as root it runs as the user postgres, for it refuses root."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        found = [*map(Path, filter(None, [shutil.which("initdb")])), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
        if not found:
            pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
        self._bin = found[0].resolve().parent
        self._data = folder / "data"
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        if self._as:
            for parent in (folder, *folder.parents):  # pytest's folders are for their owner alone
                if parent != Path("/") and str(parent).startswith("/tmp/"):
                    parent.chmod(parent.stat().st_mode | 0o755)
            shutil.chown(folder, "postgres")
        command = [*self._as, str(self._bin / "initdb"), "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        self.start()

    def command(self) -> Sequence[str]:
        """See `OwnServer`."""
        options = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}"]
        return [*self._as, str(self._bin / "postgres"), "-D", str(self._data), *options]

    def start(self) -> None:
        """See `OwnServer`; ready means that it answers."""
        super().start()
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(AssertionError):
                self.ask("SELECT 1")
                return
            assert time.monotonic() < deadline, "postgres does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL for the server process, which takes its children along."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 9)
        assert self._process is not None
        self._process.wait(60)
        self._process = None

    def stop(self) -> None:
        """At once: nobody needs the data."""
        if self._process is not None:
            self.kill()

    def ask(self, sql: str) -> list[Any]:
        """The rows of a query; may be called where an event loop runs."""
        return self.using(lambda connection: connection.fetch(sql))

    def using(self, question: Callable[[Any], Awaitable[Any]]) -> Any:
        """Whatever a connection answers."""
        answers: list[Any] = []

        async def connected() -> None:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                connection = await asyncpg.connect(self.url, timeout=5)
                answers.append(await question(connection))
                await connection.close()

        thread = threading.Thread(target=lambda: asyncio.run(connected()))
        thread.start()
        thread.join(60)
        assert answers, "postgres did not answer"
        return answers[0]


@contextlib.asynccontextmanager
async def postgres_sink(folder: Path, _: Any) -> AsyncIterator[SinkWorld]:
    server = Postgres(folder / "postgres")
    sink = plugins.load("sinks", "postgres")
    types = {"number": "bigint"}
    config = sink.Config(url=server.url, table="effects", row={"number": "=n", "text": "=t"}, create=True, types=types)

    def effects() -> list[str]:
        return [key for (key,) in server.ask("SELECT idempotency_key FROM effects ORDER BY number")]

    try:
        yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), effects)
    finally:
        server.stop()
