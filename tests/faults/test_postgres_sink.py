"""Rows in PostgreSQL: values as their columns want them, what cannot be a row is refused alone, a killed server loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from inferloop.core.errors import InvalidInput
from inferloop.core.protocols import Delivery
from inferloop.streams.contexts import SinkContext
from inferloop.streams.sinks.postgres import PostgresSink
from inferloop.streams.sinks.postgres_values import converter
from support.pipelines import content, message, save
from support.runs import Run, decided, wait_until
from support.stream_worlds.postgres import Postgres

MESSAGES = 3000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


def execute(server: Postgres, sql: str) -> None:
    server.using(lambda connection: connection.execute(sql))


def sink_of(server: Postgres, **config: Any) -> PostgresSink:
    return PostgresSink(PostgresSink.Config(url=server.url, **config), SinkContext("p", "out"))


async def test_every_value_comes_as_its_column_wants_it(server: Postgres) -> None:
    execute(
        server,
        """CREATE TABLE kinds (idempotency_key text PRIMARY KEY, at timestamptz, day date, score real, exact numeric(10, 2),
           count int, hot boolean, name varchar(20), fields jsonb, signal double precision[])""",
    )
    columns = ("at", "day", "score", "exact", "count", "hot", "name", "fields", "signal")
    sink = sink_of(server, table="kinds", row=dict.fromkeys(columns, "=x"))
    await sink.open()
    values = {
        "at": 1_790_000_000.5,
        "day": "2026-09-21",
        "score": 0.5,
        "exact": 12.345,
        "count": 3.0,
        "hot": True,
        "name": "ä\x00ö",
        "fields": {"a": [1, None], "b": "\x00"},
        "signal": [1, 2.5],
    }
    await sink.send([Delivery("k1", values, "m1"), Delivery("k2", dict.fromkeys(columns), "m2")])
    await sink.close()
    first, second = server.ask("SELECT * FROM kinds ORDER BY idempotency_key")
    assert first["at"] == datetime.fromtimestamp(1_790_000_000.5, UTC)
    assert (str(first["day"]), first["score"], str(first["exact"]), first["count"]) == ("2026-09-21", 0.5, "12.35", 3)
    assert (first["hot"], first["name"], first["signal"]) == (True, "ä\ufffdö", [1.0, 2.5])
    assert json.loads(first["fields"]) == {"a": [1, None], "b": "\ufffd"}
    assert [second[name] for name in columns] == [None] * len(columns)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", 1.5),
        ("integer", "7"),
        ("boolean", 1),
        ("real", "x"),
        ("numeric", "abc"),
        ("date", "2026-13-01"),
        ("uuid", "u"),
        ("timestamp with time zone", "yesterday"),
        ("timestamp with time zone", float("nan")),
        ("double precision[]", ["a"]),
    ],
)
def test_a_value_that_a_column_cannot_hold_is_refused_with_both(kind: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match="column 'c' is "):
        converter(kind, "c")(value)


async def test_a_row_that_the_table_refuses_is_refused_and_its_neighbours_stay_possible(server: Postgres) -> None:
    execute(server, "CREATE TABLE checked (idempotency_key text PRIMARY KEY, total real CHECK (total < 100), small smallint)")
    sink = sink_of(server, table="checked", row={"total": "=t", "small": "=s"})
    await sink.open()
    with pytest.raises(InvalidInput, match="checked_total_check"):
        await sink.send([Delivery("k1", {"total": 1.0}, "m1"), Delivery("k2", {"total": 500.0}, "m2")])
    with pytest.raises(InvalidInput, match="out of int16 range"):
        await sink.send([Delivery("k3", {"small": 70_000}, "m3")])
    await sink.send([Delivery("k1", {"total": 1.0}, "m1")])
    await sink.close()
    assert [key for (key,) in server.ask("SELECT idempotency_key FROM checked")] == ["k1"]


async def test_a_hypertable_s_index_of_two_columns_finds_a_repetition(server: Postgres) -> None:
    execute(server, "CREATE TABLE wide (idempotency_key text, at timestamptz, UNIQUE (at, idempotency_key))")
    sink = sink_of(server, table="public.wide", row={"at": "=time"}, unique=["idempotency_key", "at"])
    await sink.open()
    for _ in range(2):
        await sink.send([Delivery("k1", {"at": 5.0}, "m1")])
    await sink.close()
    assert len(server.ask("SELECT * FROM wide")) == 1


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("nowhere", "there is no table 'nowhere'"),
        ("plain", "no unique index on (idempotency_key)"),
        ("narrow", "no column 'total'; it has idempotency_key"),
    ],
)
async def test_a_table_that_does_not_fit_is_told_before_the_first_message(table: str, told: str, server: Postgres) -> None:
    execute(server, "CREATE TABLE IF NOT EXISTS plain (idempotency_key text, total real)")
    execute(server, "CREATE TABLE IF NOT EXISTS narrow (idempotency_key text PRIMARY KEY)")
    with pytest.raises(InvalidInput) as refused:
        await sink_of(server, table=table, row={"total": "=t"}).open()
    assert told in refused.value.message


def test_a_password_is_in_no_log_and_no_text_of_the_settings(server: Postgres) -> None:
    config = PostgresSink.Config(url="postgresql://u:geheim@127.0.0.1:1/db", table="t")
    assert "geheim" not in repr(config)


def test_a_server_that_is_killed_and_comes_back_gets_every_row_once(tmp_path: Path, home: Path) -> None:
    server = Postgres(tmp_path / "postgres")
    try:
        (tmp_path / "feed.jsonl").write_bytes(b"".join(message(number) + b"\n" for number in range(MESSAGES)))
        row = {"id": "=id", "score": "=score"}
        table = {"url": server.url, "table": "acts", "row": row, "create": True, "types": {"score": "double precision"}}
        sections = content(
            sources={"feed": {"file": {"path": str(tmp_path / "feed.jsonl"), "follow": True}}},
            model={"ref": "numbers@champion", "batch": {"max": 16}},
            sinks={"act": {"postgres": table}},
        )
        run = Run(save(tmp_path / "demo.yaml", sections))
        before = 0
        for _ in range(2):
            wait_until(lambda seen=before: _rows(server) > seen + 200, run)
            server.kill()
            server.start()
            before = _rows(server)
            assert 0 < before < MESSAGES, "the kill came too late"
        wait_until(lambda: _rows(server) == MESSAGES, run)
        run.terminate()
        summary = run.end()
        assert {id_ for (id_,) in server.ask("SELECT id FROM acts")} == {f"m{number}" for number in range(MESSAGES)}
        assert len(decided(home)) == MESSAGES
        assert summary["retries"]["act"] >= 1
        assert summary["dead_letters"] == 0
    finally:
        server.stop()


def _rows(server: Postgres) -> int:
    """How many are there; none while there is no table."""
    ((table,),) = server.ask("SELECT to_regclass('acts')::text")
    return 0 if table is None else int(server.ask("SELECT count(*) FROM acts")[0][0])
