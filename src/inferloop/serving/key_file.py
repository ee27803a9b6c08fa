"""The file of API keys: read as a whole, written as a whole, never holding a key itself."""

from __future__ import annotations

import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import msgspec

from inferloop.core.errors import Conflict, InvalidConfig, InvalidInput, NewerSchema, NotFound, StorageError
from inferloop.serving.scopes import Scope

SCHEMA = 1
PREFIX = "il_"
"""What every key begins with, so that scanners for leaked secrets can find one."""

_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Key:
    """What the server knows of a key.

    Attributes:
        id: names it in lists and logs; no secret.
        name: what its owner calls it; may be empty.
        digest: SHA-256 of the key, 32 bytes.
        created: UTC, as ISO 8601.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    digest: bytes
    created: str


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    scopes: Annotated[list[Scope], msgspec.Meta(min_length=1)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    name: str = ""
    created: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    schema: int
    keys: list[_Entry]


def read(path: Path) -> tuple[Key, ...]:
    """All keys of a file.

    Raises:
        NotFound: there is no such file.
        InvalidConfig: it is not a file of keys, or two have the same id or digest.
        NewerSchema: a newer inferloop wrote it.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would hold up the server until somebody writes to it
            raise InvalidConfig([f"{path}: it is not a regular file"])
        content = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError as error:
        raise NotFound(f"no file of keys at {path}", hint="`inferloop keys create --scope infer` makes one") from error
    except OSError as error:
        raise InvalidConfig([f"{path}: {error.strerror}"]) from error
    except msgspec.MsgspecError as error:
        raise InvalidConfig([f"{path}: {error}"], hint="files of keys are written by `inferloop keys`") from error
    if content.schema > SCHEMA:
        raise NewerSchema(f"{path} has schema {content.schema}, this inferloop reads {SCHEMA}", hint="install a newer inferloop")
    keys = tuple(Key(e.id, e.name, frozenset(e.scopes), bytes.fromhex(e.sha256), e.created) for e in content.keys)
    if len({key.id for key in keys}) < len(keys) or len({key.digest for key in keys}) < len(keys):
        raise InvalidConfig([f"{path}: keys: two are the same"])
    return keys


def create(path: Path, scopes: Iterable[Scope], *, name: str = "") -> tuple[str, Key]:
    """Add a key; the file is made if it is not there, for its owner's eyes only.

    Returns:
        The key, which is stored nowhere, and what the file says of it.

    Raises:
        InvalidInput: no scope, or a name that does not fit on a line.
        Conflict: another key has that name.
        StorageError: the file cannot be written.
    """
    allowed = frozenset(scopes)
    if not allowed:
        raise InvalidInput("a key needs a scope", hint=f"known: {', '.join(Scope)}")
    if len(name) > _NAME_LENGTH or not name.isprintable():
        raise InvalidInput(f"a name is one line of at most {_NAME_LENGTH} characters")
    secret = PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    key = Key(secrets.token_hex(4), name, allowed, sha256(secret.encode()).digest(), now)
    with _locked(path):
        keys = read(path) if path.exists() else ()
        if name and any(other.name == name for other in keys):
            raise Conflict(f"a key named {name!r} is there already", hint="choose another name, or revoke that one first")
        _write(path, (*keys, key))
    return secret, key


def revoke(path: Path, named: str) -> Key:
    """Take a key away, by its id or name; a server that runs refuses it within a second.

    Raises:
        NotFound: no key has that id or name.
        StorageError: the file cannot be written.
    """
    with _locked(path):
        keys = read(path)
        found = next((key for key in keys if named and named in (key.id, key.name)), None)
        if found is None:
            raise NotFound(f"no key {named!r} in {path}", hint="`inferloop keys list` shows all")
        _write(path, tuple(key for key in keys if key is not found))
    return found


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    """Replace the file in one step: a reader sees the old one or the new one."""
    entries = [
        {"id": key.id, "name": key.name, "scopes": sorted(key.scopes), "sha256": key.digest.hex(), "created": key.created}
        for key in keys
    ]
    text = json.dumps({"schema": SCHEMA, "keys": entries}, indent=2) + "\n"
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(draft).replace(path)
    except OSError as error:
        Path(draft).unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time. Where the system has no such locks (Windows), the last one wins."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
