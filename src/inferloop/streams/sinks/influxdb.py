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
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.addresses import checked_url
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.pausing import Pause
from inferloop.streams.delivery.reaching import reached
from inferloop.streams.line_protocol import Kind, Precision, as_kind, is_name, line, timestamp

if TYPE_CHECKING:
    import aiohttp

_LATER = frozenset({401, 403, 404, 408, 429})
_MAX_SHOWN = 500
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
        self._session: aiohttp.ClientSession | None = None
        self._pause = Pause()

    @property
    def caveat(self) -> str:
        """What `pipeline check` says of it beside the guarantee."""
        tags = ", ".join(self._config.tags) or "no tags at all"
        return f"messages with the same time ({self._config.precision}) and tags ({tags}) are one point, the last one counts"

    async def open(self) -> None:
        """See `Sink.open`."""
        import aiohttp

        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._config.user is not None:
            login = f"{self._config.user}:{self._config.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        if self._config.token is not None:
            headers["Authorization"] = f"Token {self._config.token}"
        timeout = aiohttp.ClientTimeout(total=self._config.timeout)
        self._session = aiohttp.ClientSession(timeout=timeout, headers=headers)
        try:
            await reached(self._ping, part=f"sink {self._name}", url=self._config.url)
        except BaseException:
            await self.close()
            raise

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        await self._pause.over()
        lines = [self._line(delivery) for delivery in deliveries]
        status, reason = await self._request("POST", self._path, "\n".join(lines).encode())
        if 200 <= status < 300:
            return
        message = f"{self._part} answered {status}: {reason}"
        if status >= 500 or status in _LATER:
            raise Unavailable(message)
        raise InvalidInput(message)

    async def close(self) -> None:
        """See `Sink.close`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def _path(self) -> str:
        return "/write" if self._config.bucket is None else "/api/v2/write"

    def _query(self) -> dict[str, str]:
        config = self._config
        if config.bucket is not None:
            return {"org": config.org or "", "bucket": config.bucket, "precision": config.precision}
        query = {"db": config.database or "", "precision": _V1_PRECISION[config.precision]}
        return query if config.retention_policy is None else {**query, "rp": config.retention_policy}

    async def _ping(self) -> None:
        status, reason = await self._request("GET", "/ping", b"")
        if status >= 500:
            raise Unavailable(f"{self._part} answered {status}: {reason}")

    async def _request(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        """The status, and the beginning of what is said beside it."""
        import aiohttp

        if self._session is None:
            raise Unavailable(f"{self._part} is closed")
        url = self._config.url.rstrip("/") + path
        query = self._query() if body else {}
        try:
            async with self._session.request(method, url, params=query, data=body or None, allow_redirects=False) as response:
                reason = (await response.content.read(_MAX_SHOWN)).decode("utf-8", "replace")
                if not 200 <= response.status < 300:
                    self._pause.asked(response.headers)
                return response.status, " ".join(reason.split()) or response.headers.get("X-Influxdb-Error", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{self._part}: {type(error).__name__}: {error}") from error

    def _line(self, delivery: Delivery) -> str:
        config, payload = self._config, delivery.payload
        try:
            fields = {name: as_kind(name, payload.get(name), config.types.get(name)) for name in config.field_names}
            when = timestamp(payload.get(config.time), config.precision)
            return line(config.measurement, {name: payload.get(name) for name in config.tags}, fields, when)
        except InvalidInput as error:
            raise InvalidInput(f"{self._part}: {error.message}") from error
