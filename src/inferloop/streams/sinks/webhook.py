"""An HTTP request per delivery, with the idempotency key in the header `Idempotency-Key`.

2xx                       confirmed
408, 425, 429, 5xx        try again later, not before `Retry-After`, as with a connection that breaks or a time that runs out
401 with `oauth`          once more with a new token, then try again later
every other answer        refused for good; a redirect too, followed it would turn a POST into a GET that does nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.contexts import SinkContext
from inferloop.streams.http_caller import Answer, HttpCaller
from inferloop.streams.oauth import OAuth, Tokens
from inferloop.streams.signing import Signing

_LATER = frozenset({408, 425, 429})


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

        url: str = Field(repr=False)
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
        self._part = f"sink {context.name!r}"
        headers = {"Content-Type": "application/json", **config.headers}
        if config.token is not None:
            headers["Authorization"] = f"Bearer {config.token}"
        self._caller = HttpCaller(self._part, timeout_s=config.timeout, headers=headers)
        self._tokens: Tokens | None = None
        if config.oauth is not None:
            self._tokens = Tokens(config.oauth, self._part, timeout_s=config.timeout)

    async def open(self) -> None:
        """See `Sink.open`; the first connection is made by the first delivery."""
        self._caller.open()

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        for delivery in deliveries:
            await self._post(delivery)

    async def close(self) -> None:
        """See `Sink.close`."""
        await self._caller.close()

    async def _post(self, delivery: Delivery) -> None:
        await self._caller.rest()
        body = msgspec.json.encode(delivery.payload)
        headers = {"Idempotency-Key": delivery.key}
        if self._config.hmac is not None:
            headers |= self._config.hmac.headers(body)
        answer = await self._answer(body, headers)
        if answer.status == 401 and self._tokens is not None:
            answer = await self._answer(body, headers)
        if answer.is_good:
            return
        message = f"{self._part} answered {answer.status}: {answer.said}"
        if answer.status >= 500 or answer.status in _LATER or (answer.status == 401 and self._tokens is not None):
            raise Unavailable(message)
        raise InvalidInput(message)

    async def _answer(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """One request, with the token of the moment; a token that is refused is not used again."""
        method, url = self._config.method, self._config.url
        if self._tokens is None:
            return await self._caller.call(method, url, body=body, headers=headers)
        token = await self._tokens.header()
        answer = await self._caller.call(method, url, body=body, headers={**headers, "Authorization": token})
        said = self._tokens.hidden(answer.said)
        if answer.status == 401:
            self._tokens.drop(token)
        return Answer(answer.status, said)
