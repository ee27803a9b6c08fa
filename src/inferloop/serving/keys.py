"""API keys: random secrets of which the server knows the SHA-256 only.

    key = "il_" + 32 random bytes in base64url          shown once, when it is made
    file = {"schema": 1, "keys": [{id, name, scopes, sha256, created}, ...]}

A key has 256 random bits, so a fast hash is enough: nothing shorter than trying them all finds one.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

from inferloop.core.errors import Forbidden, InferloopError, Unauthorized
from inferloop.serving.key_file import Key, read
from inferloop.serving.scopes import Need

log = logging.getLogger(__name__)

_RELOAD_S = 1.0
_KEPT = 64
"""Authorizations that were found good and need not be hashed again."""

_BEARER = b"bearer "
_HINT = "send the header `Authorization: Bearer KEY`; `inferloop keys create` makes a key"


class Keys:
    """The keys of one server; follows its file.

    Event loop only. The file is looked at once a second at most, when a request comes: a key that was revoked is refused
    a second later. A file that cannot be read leaves the keys as they were, and the log says so.

    Attributes:
        open_metrics: whether metrics need no key.
    """

    __slots__ = ("_clock", "_good", "_known", "_looked", "_path", "_seen", "open_metrics")

    def __init__(self, path: Path, *, open_metrics: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file.

        Raises:
            NotFound: there is no such file.
            InvalidConfig: it is not a file of keys.
        """
        self.open_metrics = open_metrics
        self._path = path
        self._clock = clock
        self._seen = _stamp(path)
        self._looked = clock()
        self._known = _by_digest(read(path))
        self._good: dict[bytes | str, Key] = {}

    def require(self, need: Need, authorization: bytes | str | None) -> Key | None:
        """Let a request pass, or refuse it.

        Args:
            need: what the operation asks for.
            authorization: the value of the header, or of gRPC's metadata, `authorization`; None without one.

        Returns:
            The key that allows it, for logs; None where none is needed.

        Raises:
            Unauthorized: no key was sent, or one that is not known.
            Forbidden: the key lacks the scope.
        """
        if need is Need.OPEN:
            return None
        now = self._clock()
        if now - self._looked > _RELOAD_S:
            self._looked = now
            self._reload()
        key = self._good.get(authorization or b"") or self._find(authorization)
        if need is not Need.ANY and need.value not in key.scopes:
            scopes = ", ".join(sorted(key.scopes))
            raise Forbidden(f"key {key.name or key.id!r} has no scope {need.value!r}", hint=f"its scopes: {scopes}")
        return key

    def _find(self, authorization: bytes | str | None) -> Key:
        if not authorization:
            raise Unauthorized("this server asks for a key", hint=_HINT)
        sent = authorization.encode("utf-8", "replace") if isinstance(authorization, str) else authorization
        if sent[:7].lower() != _BEARER:
            raise Unauthorized("the authorization is not of the kind 'Bearer'", hint=_HINT)
        digest = sha256(sent[7:].strip()).digest()
        key = self._known.get(digest)
        if key is None or not hmac.compare_digest(key.digest, digest):
            raise Unauthorized(
                "the key is not known", hint="it may have been revoked; `inferloop keys list` shows those that are"
            )
        if len(self._good) >= _KEPT:
            self._good.clear()
        self._good[authorization] = key
        return key

    def _reload(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._known = _by_digest(read(self._path))
        except InferloopError as error:
            log.error("keys not read again", extra={"file": str(self._path), "error": error.message})
            return
        self._good.clear()
        log.info("keys read", extra={"file": str(self._path), "keys": len(self._known)})


def _by_digest(keys: tuple[Key, ...]) -> Mapping[bytes, Key]:
    return {key.digest: key for key in keys}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
