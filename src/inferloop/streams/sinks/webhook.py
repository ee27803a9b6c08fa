"""An HTTP request per delivery, with the idempotency key in the header `Idempotency-Key`.

2xx                       confirmed
408, 425, 429, 5xx        try again later, as with a connection that breaks or a time that runs out
every other answer        refused for good; a redirect too, followed it would turn a POST into a GET that does nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.contexts import SinkContext
from inferloop.streams.signing import Signing

if TYPE_CHECKING:
    import aiohttp

_LATER = frozenset({408, 425, 429})
_MAX_SHOWN = 200


class WebhookSink(Sink):
    """One kept-alive connection; deliveries in order, one at a time."""

    class Config(BaseModel):
        """Where to and what.

        Attributes:
            json: the body; a text that starts with `=` is an expression. Without it: identity, decision and fields.
            token: goes along as `Authorization: Bearer TOKEN`.
            hmac: sign the body, so that the receiver knows who sent it.
            timeout: of one try, in seconds.
        """

        model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

        url: str
        method: Literal["POST", "PUT", "PATCH"] = "POST"
        headers: dict[str, str] = Field(default_factory=dict, repr=False)
        body: Any = Field(None, alias="json")
        token: str | None = Field(None, min_length=1, repr=False)
        hmac: Signing | None = None
        timeout: Annotated[Duration, Field(gt=0)] = 10.0

        @field_validator("url")
        @classmethod
        def _address(cls, value: str) -> str:
            if "${" not in value and not value.startswith(("http://", "https://")):
                raise ValueError("must start with http:// or https://")
            return value

        @field_validator("body")
        @classmethod
        def _object(cls, value: Any) -> Any:
            if value is not None and not isinstance(value, Mapping):
                raise ValueError("must be a mapping")
            return value

    payload_key = "json"
    idempotent = True
    batched = False

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._name = context.name
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """See `Sink.open`; the first connection is made by the first delivery."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self._config.timeout)
        headers = {"Content-Type": "application/json", **self._config.headers}
        if self._config.token is not None:
            headers["Authorization"] = f"Bearer {self._config.token}"
        self._session = aiohttp.ClientSession(timeout=timeout, headers=headers)

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        for delivery in deliveries:
            await self._post(delivery)

    async def close(self) -> None:
        """See `Sink.close`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, delivery: Delivery) -> None:
        import aiohttp

        if self._session is None:
            raise Unavailable(f"sink {self._name!r} is closed")
        body = msgspec.json.encode(delivery.payload)
        headers, url = {"Idempotency-Key": delivery.key}, self._config.url
        if self._config.hmac is not None:
            headers |= self._config.hmac.headers(body)
        try:
            async with self._session.request(
                self._config.method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                answer = await response.content.read(_MAX_SHOWN)
                status = response.status
                if 200 <= status < 300:
                    return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"sink {self._name!r}: {type(error).__name__}: {error}") from error
        message = f"sink {self._name!r} answered {status}: {answer.decode('utf-8', 'replace')}"
        if status >= 500 or status in _LATER:
            raise Unavailable(message)
        raise InvalidInput(message)
