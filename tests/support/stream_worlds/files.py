"""Files, tables, standard output and the review queue."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from inferloop.core import plugins
from inferloop.data.journal import Journal
from inferloop.streams.contexts import SinkContext, SourceContext
from support.stream_worlds import Payloads, SinkWorld, SourceWorld


def appended(path: Path) -> Callable[[Payloads], None]:
    def put(payloads: Payloads) -> None:
        with path.open("ab") as file:
            file.writelines(payload + b"\n" for payload in payloads)

    return put


@contextlib.asynccontextmanager
async def file_source(folder: Path) -> AsyncIterator[SourceWorld]:
    remembered: list[str] = [""]
    source = plugins.load("sources", "file")
    config = source.Config(path=folder / "feed.jsonl")

    def remember(position: str) -> None:
        remembered[0] = position

    yield SourceWorld(
        lambda: source(config, SourceContext("p", "feed", remembered[0], remember)), appended(folder / "feed.jsonl")
    )


@contextlib.asynccontextmanager
async def sqlite_sink(folder: Path, _: Any) -> AsyncIterator[SinkWorld]:
    sink = plugins.load("sinks", "sqlite")
    config = sink.Config(path=folder / "out.db", table="effects", row={"number": "=n"})

    def effects() -> list[str]:
        with contextlib.closing(sqlite3.connect(folder / "out.db")) as database:
            return [key for (key,) in database.execute("SELECT idempotency_key FROM effects ORDER BY rowid")]

    yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), effects)


@contextlib.asynccontextmanager
async def file_sink(folder: Path, _: Any) -> AsyncIterator[SinkWorld]:
    sink = plugins.load("sinks", "file")
    path = folder / "deep" / "out.jsonl"

    def effects() -> list[str]:
        return [f"k{json.loads(line)['number']}" for line in path.read_text().splitlines()]

    yield SinkWorld(lambda: sink(sink.Config(path=path), SinkContext("p", "act")), effects)


@contextlib.asynccontextmanager
async def stdout_sink(_: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[SinkWorld]:
    sink = plugins.load("sinks", "stdout")

    def effects() -> list[str]:
        return [f"k{json.loads(line)['number']}" for line in capsys.readouterr().out.splitlines()]

    yield SinkWorld(lambda: sink(sink.Config(), SinkContext("p", "act")), effects)


@contextlib.asynccontextmanager
async def queue_sink(folder: Path, _: Any) -> AsyncIterator[SinkWorld]:
    sink = plugins.load("sinks", "queue")
    with Journal(folder / "journal.db") as journal:
        context = SinkContext("p", "act", journal)
        yield SinkWorld(lambda: sink(sink.Config(), context), lambda: [item.key for item in journal.review_list()])


@contextlib.asynccontextmanager
async def directory_source(folder: Path) -> AsyncIterator[SourceWorld]:
    remembered: list[str] = [""]
    source = plugins.load("sources", "directory")
    inbox = folder / "inbox"
    inbox.mkdir()
    config = source.Config(path=inbox, settle="20ms", every="20ms", in_flight=1024)

    def remember(position: str) -> None:
        remembered[0] = position

    def put(payloads: Payloads) -> None:
        for payload in payloads:
            (inbox / f"{json.loads(payload)['number']:06}.json").write_bytes(payload)

    yield SourceWorld(lambda: source(config, SourceContext("p", "feed", remembered[0], remember)), put)
