"""What a user is told when an address cannot be listened on."""

from __future__ import annotations

import errno

from inferloop.core.errors import InferloopError, InvalidInput, Unavailable


def listen_error(error: OSError, host: str, port: int) -> InferloopError:
    """The error of ours for the system's; its hint says what to do."""
    if error.errno == errno.EADDRINUSE:
        return Unavailable(f"port {port} of {host} is in use", hint="stop the other process, or choose another port")
    if error.errno == errno.EACCES:
        return InvalidInput(f"port {port} of {host} is not ours to take", hint="ports below 1024 need privileges")
    return InvalidInput(f"cannot listen on {host}:{port}: {error.strerror or error}", hint="use an address of this machine")
