"""Memory that two processes see: one writes, the other reads, in turns."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile

_LEAST = 1 << 16


class Region:
    """A stretch of shared memory behind a file descriptor. It has no name: nothing is left behind, however a process ends.

    It grows and never shrinks, and is given back when nobody holds it. Not for two threads at once.

    Attributes:
        fd: what the other process needs to see it; inherited, or handed over a socket.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map: mmap.mmap | None = None

    @classmethod
    def new(cls) -> Region:
        """An empty one."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("inferloop", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # a reader must not lose what it looks at
            return cls(fd)
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def view(self, size_bytes: int) -> mmap.mmap:
        """The memory, with at least so many bytes; for the writer and the reader alike."""
        if self._map is None or len(self._map) < size_bytes:
            if os.fstat(self.fd).st_size < size_bytes:
                os.ftruncate(self.fd, max(_LEAST, 1 << (size_bytes - 1).bit_length()))
            self._map = mmap.mmap(self.fd, os.fstat(self.fd).st_size)  # arrays may still look at the old one: it is not closed
        return self._map

    def __del__(self) -> None:
        os.close(self.fd)
