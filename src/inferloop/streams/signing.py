"""Signed requests: HMAC-SHA256 over the body, or over `TIMESTAMP.BODY`, in a header.

    X-Signature-Timestamp: 1764000000                    seconds since the epoch, decimal
    X-Signature-256: sha256=<64 hexadecimal digits>      HMAC-SHA256(secret, b"1764000000." + body)

With the time in it, a request that somebody recorded is worth nothing once it is old. Services that sign the body alone
(GitHub: `X-Hub-Signature-256`) are checked with `timestamp: null`.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from inferloop.core.errors import Unauthorized
from inferloop.data.config import Duration

SIGNATURE = "X-Signature-256"
TIMESTAMP = "X-Signature-Timestamp"
_SCHEME = "sha256="
_HEADER = r"^[A-Za-z0-9-]+$"


class Signing(BaseModel):
    """How a request is signed.

    Attributes:
        secret: what both sides know.
        header: holds `sha256=` and the signature in hexadecimal digits.
        timestamp: the header with the seconds since the epoch, which are signed too; null signs the body alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret: str = Field(min_length=1, repr=False)
    header: str = Field(SIGNATURE, pattern=_HEADER)
    timestamp: str | None = Field(TIMESTAMP, pattern=_HEADER)

    def headers(self, body: bytes) -> dict[str, str]:
        """The headers that sign `body` now."""
        if self.timestamp is None:
            return {self.header: signature(self.secret, body)}
        now = str(int(time.time()))
        return {self.timestamp: now, self.header: signature(self.secret, body, now)}


class SignatureCheck(Signing):
    """How a request must be signed.

    Attributes:
        tolerance: how far the time of a signature may be from ours.
    """

    tolerance: Annotated[Duration, Field(gt=0)] = 300.0

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Let a request pass.

        Raises:
            Unauthorized: it has no signature, another one, or an old one.
        """
        given = headers.get(self.header, "")
        when = "" if self.timestamp is None else headers.get(self.timestamp, "")
        if not hmac.compare_digest(given.encode(), signature(self.secret, body, when).encode()):
            raise Unauthorized("the signature is missing or wrong")
        if self.timestamp is not None and not self._is_recent(when):
            raise Unauthorized("the signature is too old, or has no time")

    def _is_recent(self, when: str) -> bool:
        return when.isascii() and when.isdecimal() and len(when) < 16 and abs(time.time() - int(when)) <= self.tolerance


def signature(secret: str, body: bytes, timestamp: str = "") -> str:
    """`sha256=` and the hexadecimal HMAC-SHA256 of the body, behind the time and a dot if there is one."""
    signed = timestamp.encode() + b"." + body if timestamp else body
    return _SCHEME + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
