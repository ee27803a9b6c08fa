"""A row in a PostgreSQL table; a row whose key is there already is left as it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Annotated, Any

import asyncpg
import msgspec
from asyncpg import exceptions
from pydantic import BaseModel, ConfigDict, Field, field_validator

from inferloop.core.errors import InferloopError, InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.addresses import checked_url
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.reaching import reached
from inferloop.streams.sinks.postgres_values import Convert, converter

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Table = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$")]
ColumnType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9 ]*(\(\d+(,\d+)?\))?(\[\])?$")]

_CONNECT_S = 5.0
_COLUMNS = """SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped"""
_UNIQUE = """SELECT array_agg(a.attname ORDER BY a.attname)::text[] FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indpred IS NULL
GROUP BY i.indexrelid"""


class PostgresSink(Sink):
    """Writes a batch in one transaction, each value as the type of its column."""

    class Config(BaseModel):
        """Where to and what.

        Attributes:
            url: `postgresql://[user:password@]host[:5432]/database`.
            table: `TABLE` or `SCHEMA.TABLE`.
            row: column to value; a text that starts with `=` is an expression. Without it: one column `payload` with JSON.
            key: the column that holds the idempotency key.
            unique: the columns of the unique index that finds a repetition, where it has more than the key: a TimescaleDB
                hypertable wants its time column there.
            create: make the table if it is not there, with the types in `types`; `text` for a column without one.
            timeout: of one batch, in seconds.
        """

        model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

        url: str = Field(repr=False)
        table: Table
        row: dict[Identifier, Any] | None = Field(None, min_length=1)
        key: Identifier = "idempotency_key"
        unique: tuple[Identifier, ...] = ()
        create: bool = False
        types: dict[Identifier, ColumnType] = Field(default_factory=dict)
        timeout: Annotated[Duration, Field(gt=0)] = 10.0

        @field_validator("url")
        @classmethod
        def _address(cls, value: str) -> str:
            return checked_url(value, "postgresql", "postgres")

    payload_key = "row"
    idempotent = True
    batched = True

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._part = f"sink {context.name!r}"
        self._columns = tuple(config.row or ("payload",))
        self._connection: Any = None
        self._converters: tuple[Convert, ...] = ()
        self._insert = ""

    async def open(self) -> None:
        """See `Sink.open`."""
        try:
            await reached(self._connect, part=self._part, url=self._config.url)
        except BaseException:
            await self.close()
            raise

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        if self._connection is None or self._connection.is_closed():
            await self._connect()
        rows = [self._row(delivery) for delivery in deliveries]
        with self._translated():
            async with self._connection.transaction():
                await self._connection.executemany(self._insert, rows, timeout=self._config.timeout)

    async def close(self) -> None:
        """See `Sink.close`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(exceptions.PostgresError, exceptions.InterfaceError, OSError, TimeoutError):
                await connection.close(timeout=2)

    async def _connect(self) -> None:
        await self.close()
        with self._translated():
            self._connection = await asyncpg.connect(
                self._config.url, timeout=_CONNECT_S, server_settings={"application_name": "inferloop"}
            )
            if self._config.create:
                await self._connection.execute(self._create())
            types = dict(await self._connection.fetch(_COLUMNS, self._config.table))
            unique = [set(columns) for (columns,) in await self._connection.fetch(_UNIQUE, self._config.table)]
        self._check(types, unique)
        names = (self._config.key, *self._columns)
        self._converters = tuple(converter(types[name], name) for name in self._columns)
        places = ", ".join(f"${number}" for number in range(1, len(names) + 1))
        columns, conflict = ", ".join(map(_quoted, names)), ", ".join(map(_quoted, self._conflict))
        self._insert = (
            f"INSERT INTO {_quoted(self._config.table)} ({columns}) VALUES ({places}) ON CONFLICT ({conflict}) DO NOTHING"  # noqa: S608  # checked identifiers
        )

    @property
    def _conflict(self) -> tuple[str, ...]:
        return self._config.unique or (self._config.key,)

    def _check(self, types: dict[str, str], unique: list[set[str]]) -> None:
        table, key = self._config.table, self._config.key
        if not types:
            raise InvalidInput(f"{self._part}: there is no table {table!r}", hint=f"create: true, or {self._create()}")
        missing = [column for column in (key, *self._columns, *self._conflict) if column not in types]
        if missing:
            raise InvalidInput(
                f"{self._part}: table {table!r} has no column {', '.join(map(repr, missing))}; it has {', '.join(types)}"
            )
        if set(self._conflict) not in unique:
            columns = ", ".join(self._conflict)
            raise InvalidInput(
                f"{self._part}: table {table!r} has no unique index on ({columns})",
                hint=f"CREATE UNIQUE INDEX ON {table} ({columns})",
            )

    def _create(self) -> str:
        types = {
            self._config.key: "text",
            **{name: "jsonb" if name == "payload" else "text" for name in self._columns},
            **self._config.types,
        }
        columns = ", ".join(f"{_quoted(name)} {kind}" for name, kind in types.items())
        primary = ", ".join(map(_quoted, self._conflict))
        return f"CREATE TABLE IF NOT EXISTS {_quoted(self._config.table)} ({columns}, PRIMARY KEY ({primary}))"

    def _row(self, delivery: Delivery) -> tuple[Any, ...]:
        if self._config.row is None:
            return (delivery.key, msgspec.json.encode(delivery.payload).decode())
        pairs = zip(self._columns, self._converters, strict=True)
        return (delivery.key, *(convert(delivery.payload.get(column)) for column, convert in pairs))

    @contextlib.contextmanager
    def _translated(self) -> Any:
        """Errors of the database as ours: a row that it refuses, and everything that a later try may heal."""
        try:
            yield
        except InferloopError:
            raise
        except (exceptions.DataError, exceptions.IntegrityConstraintViolationError, ValueError) as error:
            raise InvalidInput(f"{self._part}: {error}") from error
        except (exceptions.PostgresError, exceptions.InterfaceError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise Unavailable(f"{self._part}: {str(error) or type(error).__name__}") from error


def _quoted(name: str) -> str:
    return ".".join(f'"{part}"' for part in name.split("."))
