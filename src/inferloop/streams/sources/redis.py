"""Entries of a Redis stream, through a consumer group."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import redis.asyncio as redis
from pydantic import Field
from redis import exceptions

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.sample import Message
from inferloop.data.config import Duration
from inferloop.streams.contexts import SourceContext
from inferloop.streams.redis_access import RedisConfig, client, translated
from inferloop.streams.sources.pulled import PulledSource

_WAIT_MS = 1000
_SILENCE_S = 10.0
_MOST_A_FETCH = 512
_Entries = Sequence[tuple[bytes, Mapping[bytes, bytes] | None]]


class RedisSource(PulledSource):
    """Several processes in one `group` share the entries; what one held when it died goes to others after `claim_idle`.

    At its start it first reads again what its `consumer` had not acknowledged.
    """

    class Config(RedisConfig):
        """The stream and the group.

        Attributes:
            group: by default made of pipeline and source; made at the beginning of the stream if it is not there.
            consumer: the name of this process in the group; by default that of the machine. Two processes need two names.
            claim_idle: an entry that another consumer has held for so long without a sign of life is taken from it.
            in_flight: entries that may wait for their acknowledgement.
        """

        group: str | None = Field(None, min_length=1)
        consumer: str | None = Field(None, min_length=1)
        claim_idle: Annotated[Duration, Field(ge=1)] = 60.0
        in_flight: int = Field(1024, ge=1, le=65_535)

    caveat = "only as durable as the server: Redis may lose what its `appendfsync` had not yet forced to disk"

    def __init__(self, config: Config, context: SourceContext) -> None:
        super().__init__(context.name, config.url, in_flight=config.in_flight, keep_s=config.claim_idle / 3)
        self._config = config
        self._group = config.group or f"{context.pipeline}-{context.name}"
        self._consumer = config.consumer or socket.gethostname()
        self._client: redis.Redis | None = None
        self._own = "0"
        """The last entry seen of our own unacknowledged ones; empty once there are no more."""
        self._claim_at = 0.0

    async def _connect(self) -> None:
        self._client = client(self._config, f"source {self._name}")
        self._own, self._claim_at = "0", time.monotonic() + self._config.claim_idle / 2
        with translated(f"source {self._name!r}"):
            try:
                await self._client.xgroup_create(self._config.stream, self._group, id="0", mkstream=True)
            except exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def _fetch(self, most: int) -> Sequence[Message]:
        most = min(most, _MOST_A_FETCH)
        try:
            with translated(f"source {self._name!r}"):
                entries = await self._entries(most)
        except InvalidInput as error:
            if "NOGROUP" in error.message:  # the stream was deleted: its group is made anew
                raise Unavailable(error.message) from error
            raise
        now = time.time()
        return [self._message(id_.decode(), fields, now) for id_, fields in entries if fields]

    async def _entries(self, most: int) -> _Entries:
        """Our own of an earlier life first, then those that others left, then new ones."""
        if self._own:
            entries = await self._read(self._own, most)
            self._own = entries[-1][0].decode() if entries else ""
            await self._drop_deleted(entries)
            if entries:
                return [(id_, fields) for id_, fields in entries if id_.decode() not in self._held]
        if time.monotonic() >= self._claim_at:
            entries = await self._claimed(most)
            if entries:
                return entries
        return await self._read(">", most)

    async def _read(self, after: str, most: int) -> _Entries:
        blocks = _WAIT_MS if after == ">" else None
        async with asyncio.timeout(_SILENCE_S):  # a server that says nothing at all is gone
            found: Any = await self._redis.xreadgroup(
                self._group, self._consumer, {self._config.stream: after}, count=most, block=blocks
            )
        if isinstance(found, Mapping):  # RESP3
            return [entry for lists in found.values() for entries in lists for entry in entries]
        return [entry for _, entries in found or () for entry in entries]

    async def _claimed(self, most: int) -> _Entries:
        idle_ms = int(self._config.claim_idle * 1000)
        found: Any = await self._redis.xautoclaim(self._config.stream, self._group, self._consumer, idle_ms, "0-0", count=most)
        entries: _Entries = found[1]
        if len(entries) < most:
            self._claim_at = time.monotonic() + self._config.claim_idle / 2
        return [(id_, fields) for id_, fields in entries if id_.decode() not in self._held]

    async def _drop_deleted(self, entries: _Entries) -> None:
        """Entries that were deleted from the stream while they waited for us have no fields any more."""
        gone = [id_ for id_, fields in entries if not fields]
        if gone:
            await self._redis.xack(self._config.stream, self._group, *gone)

    def _message(self, id_: str, fields: Mapping[bytes, bytes], now: float) -> Message:
        wanted = self._config.field.encode()
        headers = {
            name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in fields.items() if name != wanted
        }
        payload = fields.get(wanted, b"")
        return Message(payload, self._name, now, topic=self._config.stream, position=id_, headers=headers, token=id_)

    async def _confirm(self, messages: Sequence[Message]) -> None:
        if messages:
            with translated(f"source {self._name!r}"):
                await self._redis.xack(self._config.stream, self._group, *(str(message.token) for message in messages))

    async def _keep(self, messages: Sequence[Message]) -> None:
        """Claiming one's own entries sets their idle time to zero."""
        ids = [str(message.token) for message in messages]
        if ids:
            with translated(f"source {self._name!r}"):
                await self._redis.xclaim(self._config.stream, self._group, self._consumer, 0, ids, justid=True)  # type: ignore[arg-type]

    async def _disconnect(self) -> None:
        connection, self._client = self._client, None
        if connection is not None:
            with contextlib.suppress(exceptions.RedisError, OSError):
                await connection.aclose()

    @property
    def _redis(self) -> redis.Redis:
        if self._client is None:
            raise Unavailable(f"source {self._name!r}: not connected")
        return self._client
