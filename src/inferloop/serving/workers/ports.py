"""Ports that several processes listen on together (`SO_REUSEPORT`): the kernel gives each new connection to one of them."""

from __future__ import annotations

import errno
import socket

from inferloop.core.errors import InvalidInput, Unavailable, Unsupported

_TRIES = 20


def reserve(host: str, port: int) -> socket.socket:
    """Take a port without listening on it, so that it stays ours while the processes behind it come and go.

    Args:
        host: the address that the processes will listen on.
        port: 0 takes a free one.

    Returns:
        A bound socket; the port is given back when it is closed.

    Raises:
        Unavailable: somebody has the port.
        InvalidInput: the address is not one of this machine, or the port is not ours to take.
        Unsupported: this system cannot share a port.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise Unsupported("this system cannot share a port between processes", hint="serve with one worker")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        for _ in range(_TRIES):
            found = _take(family, (address[0], _free(family, address), *address[2:]))
            if found is not None:
                return found
    except OSError as error:
        if error.errno == errno.EACCES:
            raise InvalidInput(f"port {port} of {host} is not ours to take", hint="ports below 1024 need privileges") from error
        if error.errno != errno.EADDRINUSE:
            cause = error.strerror or error
            raise InvalidInput(f"cannot listen on {host}:{port}: {cause}", hint="use an address of this machine") from error
    raise Unavailable(f"port {port} of {host} is in use", hint="stop the other process, or choose another port")


def _free(family: int, address: tuple[object, ...]) -> int:
    """The port if nobody has it, not even somebody who would share it."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if address[1]:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of yesterday do not count
        probe.bind(address)
        port: int = probe.getsockname()[1]
        return port


def _take(family: int, address: tuple[object, ...]) -> socket.socket | None:
    """Bound for sharing; None if somebody else was quicker."""
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        found.bind(address)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return found
