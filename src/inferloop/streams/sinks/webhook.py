"""An HTTP request per delivery, with the idempotency key in the header `Idempotency-Key`.

2xx                       confirmed
408, 425, 429, 5xx        try again later, not before `Retry-After`, as with a connection that breaks or a time that runs out
401 with `oauth`          once more with a new token, then try again later
every other answer        refused for good; a redirect too, followed it would turn a POST into a GET that does nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.pausing import Pause
from inferloop.streams.oauth import OAuth, Tokens
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
            oauth: ask a server for the token, which is renewed in time and after an answer of 401.
            hmac: sign the body, so that the receiver knows who sent it.
            timeout: of one try, in seconds.
        """

        model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

        url: str
        method: Literal["POST", "PUT", "PATCH"] = "POST"
        headers: dict[str, str] = Field(default_factory=dict, repr=False)
        body: Any = Field(None, alias="json")
        token: str | None = Field(None, min_length=1, repr=False)
        oauth: OAuth | None = None
        hmac: Signing | None = None
        timeout: Annotated[Duration, Field(gt=0)] = 10.0

        @field_validator("url")
        @classmethod
        def _address(cls, value: str) -> str:
            if "${" not in value and not value.startswith(("http://", "https://")):
                raise ValueError("must start with http:// or https://")
            return value

        @model_validator(mode="after")
        def _one_token(self) -> Self:
            if self.oauth is not None and (
                self.token is not None or any(name.lower() == "authorization" for name in self.headers)
            ):
                raise ValueError("must have only one of `oauth`, `token` and a header `Authorization`")
            return self

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
        self._tokens: Tokens | None = None
        if config.oauth is not None:
            self._tokens = Tokens(config.oauth, f"sink {context.name!r}", timeout_s=config.timeout)
        self._pause = Pause()

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
        await self._pause.over()
        body = msgspec.json.encode(delivery.payload)
        headers = {"Idempotency-Key": delivery.key}
        if self._config.hmac is not None:
            headers |= self._config.hmac.headers(body)
        status, answer = await self._answer(body, headers)
        if status == 401 and self._tokens is not None:
            status, answer = await self._answer(body, headers)
        if 200 <= status < 300:
            return
        message = f"sink {self._name!r} answered {status}: {answer}"
        if status >= 500 or status in _LATER or (status == 401 and self._tokens is not None):
            raise Unavailable(message)
        raise InvalidInput(message)

    async def _answer(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """One request, with the token of the moment; a token that is refused is not used again."""
        import aiohttp

        if self._session is None:
            raise Unavailable(f"sink {self._name!r} is closed")
        shown = {}
        if self._tokens is not None:
            shown["Authorization"] = await self._tokens.header()
        try:
            async with self._session.request(
                self._config.method, self._config.url, data=body, headers={**headers, **shown}, allow_redirects=False
            ) as response:
                if not 200 <= response.status < 300:
                    self._pause.asked(response.headers)
                said = (await response.content.read(_MAX_SHOWN)).decode("utf-8", "replace")
                if self._tokens is not None:
                    said = self._tokens.hidden(said)
                    if response.status == 401:
                        self._tokens.drop(shown["Authorization"])
                return response.status, said
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"sink {self._name!r}: {type(error).__name__}: {error}") from error
