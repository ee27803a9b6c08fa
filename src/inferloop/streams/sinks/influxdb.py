"""Points in InfluxDB, by its HTTP interface: that of version 2 with `bucket`, that of version 1 with `database`.

    204                          confirmed
    408, 429, 5xx                try again later, not before `Retry-After`
    401, 403, 404                who we are or where to is wrong, not the points: tried again, and told in the log
    every other answer           refused for good, with the reason that the server gives; of several points each is tried alone

A point is its measurement, its tags and its time: whoever writes it again changes nothing. That is what makes the sink
idempotent; it also makes two messages one point where they agree in all three.

Tested against the protocol, with a server of the tests' own that reads and keeps the lines, and not against InfluxDB.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.addresses import checked_url
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.reaching import reached
from inferloop.streams.http_caller import HttpCaller
from inferloop.streams.line_protocol import Kind, Precision, as_kind, is_name, line, timestamp

_LATER = frozenset({401, 403, 404, 408, 429})
_V1_PRECISION = {"ns": "ns", "us": "u", "ms": "ms", "s": "s"}


class InfluxDbSink(Sink):
    """Writes a batch with one request."""

    class Config(BaseModel):
        """Where to, and what a point is.

        Attributes:
            url: `http://HOST[:8086]` or `https://HOST`.
            org: with `bucket`, for version 2.
            database: for version 1, or version 2 by its older interface.
            retention_policy: of version 1; by default that of the database.
            token: of version 2.
            user: of version 1, with `password`.
            measurement: the name of the points.
            point: what a point has, by name: tags, fields and its time; a text that starts with `=` is an expression.
            tags: which of them are tags; a tag that is missing or empty is left out.
            time: which of them is the time: seconds since the epoch, or ISO 8601. All others are fields.
            types: of fields whose values are not always alike: `float`, `integer`, `string` or `boolean`. InfluxDB refuses a
                whole number where it has seen a fraction.
            precision: the unit of times; points with equal tags within one unit are one point.
            timeout: of one request, in seconds.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        url: str
        org: str | None = Field(None, min_length=1)
        bucket: str | None = Field(None, min_length=1)
        database: str | None = Field(None, min_length=1)
        retention_policy: str | None = Field(None, min_length=1)
        token: str | None = Field(None, min_length=1, repr=False)
        user: str | None = Field(None, min_length=1)
        password: str | None = Field(None, min_length=1, repr=False)
        measurement: str
        point: dict[str, Any] = Field(min_length=2)
        tags: tuple[str, ...] = ()
        time: str
        types: dict[str, Kind] = Field(default_factory=dict)
        precision: Precision = "ns"
        timeout: Annotated[Duration, Field(gt=0)] = 10.0

        @field_validator("url")
        @classmethod
        def _address(cls, value: str) -> str:
            if "@" in value or "?" in value:
                raise ValueError("must have no user and no query in it, they are keys of their own")
            return checked_url(value, "http", "https")

        @field_validator("measurement")
        @classmethod
        def _measurement(cls, value: str) -> str:
            if "${" not in value and not is_name(value):
                raise ValueError("is no name of a measurement")
            return value

        @model_validator(mode="after")
        def _whole(self) -> Self:
            if (self.bucket is None) == (self.database is None):
                raise ValueError("needs `org` and `bucket` (version 2), or `database` (version 1)")
            if (self.bucket is None) != (self.org is None):
                raise ValueError("needs both `org` and `bucket`")
            if self.token is not None and self.user is not None:
                raise ValueError("must have only one of `token` and `user`")
            if (self.user is None) != (self.password is None):
                raise ValueError("needs both `user` and `password`, or neither")
            for key, names in (("time", [self.time]), ("tags", self.tags), ("types", self.types)):
                for name in names:
                    if name not in self.point:
                        raise ValueError(f"{key}: `point` has no {name!r}; it has {', '.join(self.point)}")
            bad = [name for name in self.point if name != self.time and not is_name(name)]
            if bad:
                raise ValueError(f"point: {', '.join(map(repr, bad))} is no name of a tag or field")
            if not self.field_names:
                raise ValueError("point: everything is a tag or the time, a point needs a field")
            return self

        @property
        def field_names(self) -> tuple[str, ...]:
            """What is neither a tag nor the time."""
            return tuple(name for name in self.point if name != self.time and name not in self.tags)

    payload_key = "point"
    idempotent = True
    batched = True

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._part = f"sink {context.name!r}"
        self._name = context.name
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if config.user is not None:
            login = f"{config.user}:{config.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        if config.token is not None:
            headers["Authorization"] = f"Token {config.token}"
        self._caller = HttpCaller(self._part, timeout_s=config.timeout, headers=headers)
        self._url = config.url.rstrip("/")

    @property
    def caveat(self) -> str:
        """What `pipeline check` says of it beside the guarantee."""
        tags = ", ".join(self._config.tags) or "no tags at all"
        return f"messages with the same time ({self._config.precision}) and tags ({tags}) are one point, the last one counts"

    async def open(self) -> None:
        """See `Sink.open`."""
        self._caller.open()
        try:
            await reached(self._ping, part=f"sink {self._name}", url=self._config.url)
        except BaseException:
            await self.close()
            raise

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        await self._caller.rest()
        body = "\n".join(map(self._line, deliveries)).encode()
        path = "/write" if self._config.bucket is None else "/api/v2/write"
        answer = await self._caller.call("POST", self._url + path, body=body, query=self._query())
        if answer.is_good:
            return
        message = f"{self._part} answered {answer.status}: {answer.said}"
        if answer.status >= 500 or answer.status in _LATER:
            raise Unavailable(message)
        raise InvalidInput(message)

    async def close(self) -> None:
        """See `Sink.close`."""
        await self._caller.close()

    def _query(self) -> dict[str, str]:
        config = self._config
        if config.bucket is not None:
            return {"org": config.org or "", "bucket": config.bucket, "precision": config.precision}
        query = {"db": config.database or "", "precision": _V1_PRECISION[config.precision]}
        return query if config.retention_policy is None else {**query, "rp": config.retention_policy}

    async def _ping(self) -> None:
        answer = await self._caller.call("GET", f"{self._url}/ping")
        if answer.status >= 500:
            raise Unavailable(f"{self._part} answered {answer.status}: {answer.said}")

    def _line(self, delivery: Delivery) -> str:
        config, payload = self._config, delivery.payload
        try:
            fields = {name: as_kind(name, payload.get(name), config.types.get(name)) for name in config.field_names}
            when = timestamp(payload.get(config.time), config.precision)
            return line(config.measurement, {name: payload.get(name) for name in config.tags}, fields, when)
        except InvalidInput as error:
            raise InvalidInput(f"{self._part}: {error.message}") from error
