"""Hands what was decided to another model, on an inferloop server or another that speaks the Open Inference Protocol (REST).

200                          confirmed: the model has answered; the answer stays with that server (its ledger, its metrics)
400, 413, 415, 422           refused for good: it does not fit that model
every other answer           try again later, not before `Retry-After`: the server, the model or our key is not there yet
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.addresses import checked_url
from inferloop.streams.contexts import SinkContext
from inferloop.streams.http_caller import HttpCaller

_REFUSED = frozenset({400, 413, 415, 422})


class ModelSink(Sink):
    """One request a delivery, in order."""

    class Config(BaseModel):
        """Which model, and what it gets.

        Attributes:
            server: `http://HOST[:PORT]`, with a base path if there is one.
            model: its name there.
            version: of the model; by default what the server takes.
            json: the body; a text that starts with `=` is an expression. With `inputs` in it, it is a request of the protocol
                (`name`, `shape`, `datatype`, `data`); else a record for the transforms of an inferloop model.
            token: goes along as `Authorization: Bearer TOKEN`; an API key of the server.
            timeout: of one try, in seconds.
        """

        model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

        server: str
        model: str = Field(min_length=1)
        version: str | None = Field(None, min_length=1)
        body: dict[str, Any] = Field(alias="json", min_length=1)
        token: str | None = Field(None, min_length=1, repr=False)
        timeout: Annotated[Duration, Field(gt=0)] = 10.0

        @field_validator("server")
        @classmethod
        def _address(cls, value: str) -> str:
            if "@" in value or "?" in value:
                raise ValueError("must have no user and no query in it")
            return checked_url(value, "http", "https")

    payload_key = "json"
    idempotent = False
    batched = False
    caveat = "after a crash or a lost answer the model may be asked twice"

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._part = f"sink {context.name!r}"
        version = "" if config.version is None else f"/versions/{quote(config.version, safe='')}"
        self._url = f"{config.server.rstrip('/')}/v2/models/{quote(config.model, safe='')}{version}/infer"
        headers = {"Content-Type": "application/json"}
        if config.token is not None:
            headers["Authorization"] = f"Bearer {config.token}"
        self._caller = HttpCaller(self._part, timeout_s=config.timeout, headers=headers)

    async def open(self) -> None:
        """See `Sink.open`; the first connection is made by the first delivery."""
        self._caller.open()

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        for delivery in deliveries:
            await self._caller.rest()
            body = msgspec.json.encode(delivery.payload)
            answer = await self._caller.call("POST", self._url, body=body, headers={"Idempotency-Key": delivery.key})
            message = f"{self._part} answered {answer.status}: {answer.said}"
            if answer.status in _REFUSED:
                raise InvalidInput(message)
            if answer.status != 200:
                raise Unavailable(message)

    async def close(self) -> None:
        """See `Sink.close`."""
        await self._caller.close()
