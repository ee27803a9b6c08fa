"""OAuth 2 for machines (RFC 6749, client credentials): a token is asked for once, kept, and renewed shortly before it ends.

POST token_url  grant_type=client_credentials [scope] [audience]
200 {"access_token": "...", "token_type": "Bearer", "expires_in": 3600}
"""

from __future__ import annotations

import base64
import time
from typing import Any, Literal
from urllib.parse import quote

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator

from inferloop.core.errors import Unavailable
from inferloop.streams.addresses import checked_url
from inferloop.streams.http_caller import without_address

_EARLY_S = 30.0
"""A token is renewed so long before it ends, or after half of its life if that is shorter."""
_LIFE_S = 300.0
"""Of a token whose server does not say when it ends."""
_MAX_ANSWER = 65_536


class OAuth(BaseModel):
    """Where tokens come from, and who we are there.

    Attributes:
        scope: what the token is for, several with spaces.
        audience: whom the token is for, where the server wants to know.
        auth: whether id and secret go as HTTP Basic authentication or in the body.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    token_url: str
    client_id: str = Field(min_length=1)
    client_secret: str = Field(min_length=1, repr=False)
    scope: str | None = Field(None, min_length=1)
    audience: str | None = Field(None, min_length=1)
    auth: Literal["basic", "body"] = "basic"

    @field_validator("token_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("must have no user in it, `client_id` and `client_secret` are keys of their own")
        return checked_url(value, "http", "https")


class _Answer(msgspec.Struct):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105  # not a secret
    expires_in: float | str | None = None


class Tokens:
    """The token of one sink. No message and no log line has the secret or a token in it.

    Args:
        config: where from.
        part: who asks, for messages.
        timeout_s: of one request.
    """

    def __init__(self, config: OAuth, part: str, *, timeout_s: float) -> None:
        self._config = config
        self._part = part
        self._timeout_s = timeout_s
        self._token = ""
        self._renew_at = 0.0

    async def header(self) -> str:
        """The value of `Authorization`.

        Raises:
            Unavailable: the server gives none; nobody is refused for that.
        """
        if not self._token or time.monotonic() >= self._renew_at:
            self._token = ""
            self._token, life_s = await self._ask()
            self._renew_at = time.monotonic() + max(life_s - _EARLY_S, life_s / 2)
        return f"Bearer {self._token}"

    def drop(self, header: str) -> None:
        """Forget the token that was refused, unless there is a newer one."""
        if header == f"Bearer {self._token}":
            self._token = ""

    def hidden(self, text: str) -> str:
        """A text that others wrote, without the token that they may repeat in it."""
        return text.replace(self._token, "***") if self._token else text

    async def _ask(self) -> tuple[str, float]:
        """A new token, and the seconds that it lives; asked without the headers that are for somebody else."""
        import aiohttp

        form, headers = self._request()
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(self._config.token_url, data=form, headers=headers, allow_redirects=False) as response,
            ):
                status, body = response.status, await response.content.read(_MAX_ANSWER)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"{self._part}: token_url: {without_address(error)}") from error
        if status != 200:
            raise Unavailable(f"{self._part}: token_url answered {status}{_reason(body)}")
        try:
            answer = msgspec.json.decode(body, type=_Answer)
            life_s = _LIFE_S if answer.expires_in is None else float(answer.expires_in)
        except (msgspec.DecodeError, ValueError):
            answer, life_s = _Answer(""), 0.0
        if not answer.access_token.isprintable() or not answer.access_token or answer.token_type.lower() != "bearer":
            raise Unavailable(f"{self._part}: token_url answered 200 without a bearer token")
        return answer.access_token, max(life_s, 0.0)

    def _request(self) -> tuple[dict[str, str], dict[str, str]]:
        config = self._config
        form = {"grant_type": "client_credentials", "scope": config.scope, "audience": config.audience}
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        if config.auth == "body":
            form |= {"client_id": config.client_id, "client_secret": config.client_secret}
        else:
            login = f"{quote(config.client_id, safe='')}:{quote(config.client_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        return {name: value for name, value in form.items() if value is not None}, headers


def _reason(body: bytes) -> str:
    """The code that the standard has for errors (`invalid_client`); free text could repeat what we sent."""
    try:
        content: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    code = content.get("error") if isinstance(content, dict) else None
    return f": {code}" if isinstance(code, str) and code.isascii() and code.replace("_", "").isalpha() and len(code) < 40 else ""
