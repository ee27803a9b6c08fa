"""Objects in S3 or a store that speaks its protocol: many records in one object, lines of JSON, packed by gzip.

A delivery counts when the object that has it is stored. Until then its message waits: an object has at most as many records as
messages may wait at the source (`in_flight`), unless an outbox lies between.

The name of an object holds a digest of the keys in it, so that trying again replaces an object and adds none. After a crash the
same records may come in other objects: each has its `idempotency_key`, and whoever reads drops by it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Self

import msgspec
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from inferloop.core.errors import Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration, Size
from inferloop.streams.addresses import checked_url
from inferloop.streams.contexts import SinkContext
from inferloop.streams.texts import Text, TextTemplate, unknown_places

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

_PLACES = ("pipeline", "sink", "year", "month", "day", "hour", "minute", "second", "digest")
_MAX_SHOWN = 500


class S3Sink(Sink):
    """Puts one object after the other; every request is signed (version 4)."""

    class Config(BaseModel):
        """Where to, and how large an object becomes.

        Attributes:
            endpoint: of a store that is not Amazon's: `http://HOST[:PORT]` or `https://HOST`.
            access_key: with `secret_key`; without them, those of the environment (`AWS_ACCESS_KEY_ID`) or the machine's role.
            session_token: of keys that last for a while only.
            path_style: whether the bucket stands in the path and not in the host's name.
            key: the name of an object; its places are `{pipeline}`, `{sink}`, `{year}` to `{second}` (UTC, when it is first
                tried) and `{digest}`, which must be there.
            json: one record; a text that starts with `=` is an expression. Without it: identity, decision and fields.
            max_records: an object has no more.
            max_size: an object has no more, before it is packed, unless one record alone is larger.
            max_wait: after so long an object is stored, however small it is.
            timeout: of one try, in seconds.
        """

        model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, arbitrary_types_allowed=True)

        bucket: str = Field(min_length=1)
        region: str = Field("us-east-1", min_length=1)
        endpoint: str | None = None
        access_key: str | None = Field(None, min_length=1, repr=False)
        secret_key: str | None = Field(None, min_length=1, repr=False)
        session_token: str | None = Field(None, min_length=1, repr=False)
        path_style: bool = True
        key: Text = TextTemplate("{pipeline}/{sink}/{year}/{month}/{day}/{hour}{minute}{second}-{digest}.jsonl.gz")
        record: Any = Field(None, alias="json")
        max_records: int = Field(1000, ge=1, le=100_000)
        max_size: Annotated[Size, Field(ge=1)] = 16 * 10**6
        max_wait: Annotated[Duration, Field(gt=0)] = 10.0
        timeout: Annotated[Duration, Field(gt=0)] = 60.0

        @field_validator("endpoint")
        @classmethod
        def _address(cls, value: str | None) -> str | None:
            return None if value is None else checked_url(value, "http", "https")

        @field_validator("key")
        @classmethod
        def _name(cls, value: TextTemplate) -> TextTemplate:
            problems = unknown_places({"key": value}, dict.fromkeys(_PLACES))
            if problems:
                raise ValueError(problems[0].partition(": ")[2])
            if "digest" not in value.places:
                raise ValueError("must have {digest} in it, which tells objects apart")
            return value

        @model_validator(mode="after")
        def _whole_keys(self) -> Self:
            if (self.access_key is None) != (self.secret_key is None):
                raise ValueError("needs both `access_key` and `secret_key`, or neither")
            return self

    payload_key = "json"
    idempotent = False
    batched = True
    caveat = "after a crash a record may be in two objects; each has its idempotency_key"

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._part = f"sink {context.name!r}"
        self._names = {"pipeline": context.pipeline, "sink": context.name}
        self._store: S3Store | None = None
        self._tried: dict[str, str] = {}
        """Names of the objects that are being tried, by digest: one that is tried again keeps its name."""
        self.batch_max = config.max_records
        self.batch_wait_s = config.max_wait

    async def open(self) -> None:
        """See `Sink.open`; the first request is made by the first object."""
        config = self._config
        settings: S3Config = {"bucket": config.bucket, "region": config.region}
        settings["virtual_hosted_style_request"] = not config.path_style
        if config.endpoint is not None:
            settings["endpoint"] = config.endpoint
        if config.access_key is not None and config.secret_key is not None:
            settings["access_key_id"], settings["secret_access_key"] = config.access_key, config.secret_key
        if config.session_token is not None:
            settings["session_token"] = config.session_token
        limits = dt.timedelta(seconds=config.timeout)
        client: ClientConfig = {"timeout": limits, "allow_http": (config.endpoint or "").startswith("http://")}
        self._store = S3Store(config=settings, client_options=client, retry_config={"max_retries": 0, "retry_timeout": limits})

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        for keys, content in self._objects(deliveries):
            digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:32]
            name = self._tried.setdefault(digest, self._name(digest))
            await self._put(name, await asyncio.to_thread(gzip.compress, content, mtime=0))
        self._tried.clear()

    async def close(self) -> None:
        """See `Sink.close`."""
        self._store = None

    def _objects(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[list[str], bytes]]:
        """The keys and the lines of each object; the same for the same deliveries."""
        keys: list[str] = []
        content = bytearray()
        for delivery in deliveries:
            line = msgspec.json.encode({"idempotency_key": delivery.key, **delivery.payload}) + b"\n"
            if keys and len(content) + len(line) > self._config.max_size:
                yield keys, bytes(content)
                keys, content = [], bytearray()
            keys.append(delivery.key)
            content += line
        yield keys, bytes(content)

    def _name(self, digest: str) -> str:
        now = dt.datetime.now(dt.UTC)
        parts = {part: f"{getattr(now, part):02}" for part in ("year", "month", "day", "hour", "minute", "second")}
        return self._config.key.filled({**self._names, **parts, "digest": digest})

    async def _put(self, name: str, content: bytes) -> None:
        """Whatever goes wrong, the records are not to blame: it is tried again."""
        if self._store is None:
            raise Unavailable(f"{self._part} is closed")
        try:
            await obstore.put_async(
                self._store, name, content, attributes={"Content-Type": "application/x-ndjson"}, use_multipart=False
            )
        except (BaseError, OSError, ValueError) as error:
            raise Unavailable(f"{self._part}: {' '.join(str(error).split())[:_MAX_SHOWN]}") from error
