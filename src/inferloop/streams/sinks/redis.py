"""An entry in a Redis stream; an entry whose key was added already is not added again."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import redis.asyncio as redis
from pydantic import Field
from redis import exceptions

from inferloop.core.errors import Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.reaching import reached
from inferloop.streams.redis_access import RedisConfig, client, translated

_ADD_ONCE = """
local added = 0
for i = 4, #ARGV, 2 do
    local mark = KEYS[1] .. ':once:' .. ARGV[i]
    if redis.call('SET', mark, '', 'NX', 'PX', ARGV[3]) then
        local entry = {ARGV[2], ARGV[i + 1], 'idempotency-key', ARGV[i]}
        if ARGV[1] == '0' then
            redis.call('XADD', KEYS[1], '*', unpack(entry))
        else
            redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(entry))
        end
        added = added + 1
    end
end
return added
"""
"""KEYS: the stream. ARGV: its greatest length, the field, milliseconds that a key is remembered, then key and body by turns."""


class RedisSink(Sink):
    """Adds a batch in one script, which the server runs as a whole or not at all."""

    class Config(RedisConfig):
        """Where to and what.

        Attributes:
            json: the payload; a text that starts with `=` is an expression. Without it: identity, decision and fields.
            max_entries: about as many stay in the stream; 0 for all.
            remember: how long a key keeps an entry from being added again.
        """

        body: Any = Field(None, alias="json")
        max_entries: int = Field(0, ge=0)
        remember: Annotated[Duration, Field(gt=0)] = 30 * 86_400.0

    payload_key = "json"
    idempotent = True
    batched = True

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._name = context.name
        self._client: redis.Redis | None = None
        self._script: Any = None

    async def open(self) -> None:
        """See `Sink.open`."""
        await reached(self._connect, part=f"sink {self._name}", url=self._config.url)

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        if self._script is None:
            raise Unavailable(f"sink {self._name!r} is closed")
        pairs = [part for each in deliveries for part in (each.key, msgspec.json.encode(each.payload))]
        remember_ms = int(self._config.remember * 1000)
        arguments = [self._config.max_entries, self._config.field, remember_ms, *pairs]
        with translated(f"sink {self._name!r}"):
            await self._script(keys=[self._config.stream], args=arguments)

    async def close(self) -> None:
        """See `Sink.close`."""
        connection, self._client, self._script = self._client, None, None
        if connection is not None:
            with contextlib.suppress(exceptions.RedisError, OSError):
                await connection.aclose()

    async def _connect(self) -> None:
        await self.close()
        self._client = client(self._config, f"sink {self._name}")
        self._script = self._client.register_script(_ADD_ONCE)
        with translated(f"sink {self._name!r}"):
            await self._client.ping()
