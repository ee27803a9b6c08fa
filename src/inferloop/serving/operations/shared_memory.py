"""The extension `system_shared_memory`: tensors that a client on this machine lays down beside the request.

client ─ shm_open("/KEY") ── register(name, key) ── infer: input or output "is in region NAME at OFFSET" ── unregister

The server never maps a client's memory: a client that truncates a mapped object would kill the process with SIGBUS. It copies
by `pread` and `pwrite`, which answer with an error instead; 602 KB take some 60 microseconds. What is read is a private copy,
so a client that writes while the model runs harms nobody but itself.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from inferloop.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Overloaded, Unsupported

_ROOT = Path("/dev/shm")  # noqa: S108  # where POSIX shared memory is on Linux
_KEY = re.compile(r"/?(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]{0,254})")
_MOST_REGIONS = 1024
_HINT = "the server's operator allows it with --allow-client-shm"


class Region(NamedTuple):
    """A part of a registered region: where one tensor lies.

    Attributes:
        name: as it was registered.
        offset: bytes from the start of the region.
        byte_size: bytes that the tensor has, or for an output may have.
    """

    name: str
    byte_size: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class _Registered:
    name: str
    key: str
    offset: int
    byte_size: int
    file: int

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "key": self.key, "offset": self.offset, "byte_size": self.byte_size}


class Regions:
    """The regions that clients have registered. Any thread: a file is never closed while it is read.

    Args:
        allowed: whether clients may register any; while not, `status` is empty and `register` is `Forbidden`.
    """

    def __init__(self, *, allowed: bool = False) -> None:
        self.allowed = allowed
        self._regions: dict[str, _Registered] = {}
        self._lock = threading.Lock()

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Make a part of a POSIX shared memory object known under a name.

        Args:
            name: free to choose.
            key: of `shm_open`, e.g. `/frames`; letters, digits, dot, dash and underscore.
            offset: bytes from the start of the object.
            byte_size: of the region, at least 1.

        Raises:
            Forbidden: clients may not use shared memory here.
            InvalidInput: the key is no key, there is no such object, or the region leaves it.
            Conflict: the name is taken.
            Overloaded: too many regions are registered.
            Unsupported: this system has no `/dev/shm`.
        """
        if not self.allowed:
            raise Forbidden("shared memory of clients is off", hint=_HINT)
        if name in self._regions:
            raise Conflict(f"shared memory region {name!r} already in manager", hint="unregister it first")
        if len(self._regions) >= _MOST_REGIONS:
            raise Overloaded(f"{_MOST_REGIONS} shared memory regions are registered", hint="unregister some")
        if offset < 0 or byte_size < 1:
            raise InvalidInput(f"offset {offset} and byte_size {byte_size} are no region", hint="offset >= 0, byte_size >= 1")
        file = _open(key)
        try:
            size = _size(file, key)
            if offset + byte_size > size:
                raise InvalidInput(f"region {name!r} ends at {offset + byte_size}, the object {key!r} has {size} bytes")
        except BaseException:
            os.close(file)
            raise
        self._regions[name] = _Registered(name, key, offset, byte_size, file)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all of them without a name. One that is not registered is fine."""
        with self._lock:
            names = list(self._regions) if not name else [name]
            for one in names:
                region = self._regions.pop(one, None)
                if region is not None:
                    os.close(region.file)

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """Name, key, offset and byte_size of one region, or of all.

        Raises:
            NotFound: no region of that name, where they are allowed.
        """
        if not name or not self.allowed:
            return [region.describe() for region in self._regions.values()]
        return [self._find(name).describe()]

    def read(self, part: Region) -> memoryview:
        """The bytes of a tensor, copied.

        Raises:
            Forbidden: shared memory is off.
            InvalidInput: no such region, the part leaves it, or the object has shrunk.
        """
        with self._lock:
            region = self._part(part)
            data = os.pread(region.file, part.byte_size, region.offset + part.offset)
        if len(data) != part.byte_size:
            raise InvalidInput(f"shared memory region {part.name!r} has shrunk: {len(data)} of {part.byte_size} bytes are there")
        return memoryview(data)

    def write(self, part: Region, data: bytes | memoryview) -> None:
        """Lay the bytes of an output down.

        Raises:
            Forbidden, InvalidInput: as `read`; or `data` is longer than the part.
        """
        if len(data) > part.byte_size:
            raise InvalidInput(
                f"shared memory size specified with the request is too small: {part.byte_size} bytes, the output has {len(data)}"
            )
        with self._lock:
            region = self._part(part)
            start = region.offset + part.offset
            if start + len(data) > _size(region.file, region.key):
                raise InvalidInput(f"shared memory region {part.name!r} has shrunk")
            _write(region.file, memoryview(data), start)

    def check(self, part: Region) -> None:
        """Refuse a part that cannot be written, before the model runs. Errors as `write`."""
        self._part(part)

    def close(self) -> None:
        """Forget all regions."""
        self.unregister()

    def _find(self, name: str) -> _Registered:
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"Unable to find system shared memory region: '{name}'")
        return region

    def _part(self, part: Region) -> _Registered:
        if not self.allowed:
            raise Forbidden("shared memory of clients is off", hint=_HINT)
        region = self._regions.get(part.name)
        if region is None:
            raise InvalidInput(f"Unable to find shared memory region: '{part.name}'", hint="register it first")
        if part.offset < 0 or part.byte_size < 0 or part.offset + part.byte_size > region.byte_size:
            end = part.offset + part.byte_size
            raise InvalidInput(
                f"Invalid offset + byte size for shared memory region: '{part.name}': {end} of {region.byte_size} bytes"
            )
        return region


class CudaRegions:
    """The extension `cuda_shared_memory`, which is not offered: there is never a region."""

    def register(self, name: str) -> None:
        """Raise `Unsupported`."""
        hint = "send the tensor, or use system shared memory"
        raise Unsupported(f"region {name!r}: CUDA shared memory is not offered", hint=hint)

    def unregister(self, name: str = "") -> None:
        """Do nothing: there is none."""

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """Nothing for all. Raises `NotFound` for one by name."""
        if name:
            raise NotFound(f"Unable to find cuda shared memory region: '{name}'")
        return []


def _open(key: str) -> int:
    match = _KEY.fullmatch(key)
    if match is None:
        raise InvalidInput(f"{key!r} is no key of shared memory", hint="letters, digits, dot, dash and underscore, e.g. /frames")
    if not _ROOT.is_dir():
        raise Unsupported("this system has no /dev/shm", hint="send the tensors with the request")
    try:
        file = os.open(_ROOT / match["name"], os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidInput(f"Unable to open shared memory region: '{key}'", hint=error.strerror or "") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InvalidInput(f"Unable to open shared memory region: '{key}'", hint="it is no shared memory object")
    return file


def _write(file: int, data: memoryview, start: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], start + written)


def _size(file: int, key: str) -> int:
    try:
        return os.fstat(file).st_size
    except OSError as error:
        raise InvalidInput(f"Unable to open shared memory region: '{key}'") from error
