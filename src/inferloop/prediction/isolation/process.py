"""The parent's end of an engine's process: starts it, sends it work, ends it."""

from __future__ import annotations

import logging
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

import msgspec

from inferloop.core import errors
from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import EngineError, InferloopError
from inferloop.core.target import Target
from inferloop.prediction.isolation.messages import ERROR, Failure, Setup
from inferloop.prediction.isolation.region import Region
from inferloop.prediction.isolation.tensors import pack, unpack

log = logging.getLogger(__name__)

_CHILD = "inferloop.prediction.isolation.child"
_LOAD_S = 600.0
_END_S = 5.0


class ProcessEndedError(EngineError):
    """The process is gone; whether during this run or before it, the run has no answer."""


class EngineProcess:
    """One process with one loaded model. `run` is called from one thread at a time, all else from any.

    It is started anew, never forked: threads and locks of this process do not come along. It ends when this process does.
    Its shared memory is given back when nobody holds this object.
    """

    def __init__(self, bundle: Bundle, target: Target) -> None:
        """Start it and wait until the model is loaded.

        Raises:
            InferloopError: what `Engine.load` raised there.
            EngineError: it ended while it loaded, or takes too long.
        """
        self._requests, self._answers = Region.new(), Region.new()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _start(bundle, (theirs.fileno(), self._requests.fd, self._answers.fd))
        self._connection = Connection(ours.detach())
        try:
            self._send(pickle.dumps(Setup(bundle, target)))
            if not self._connection.poll(_LOAD_S):
                raise EngineError(f"the model is not loaded after {_LOAD_S:g} s")
            self._receive()
        except ProcessEndedError as error:
            raise EngineError(f"the engine's process ended by {how_it_ended(self.wait())} while it loaded the model") from error
        except BaseException:
            self.end()
            self.wait()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def run(self, inputs: Tensors) -> dict[str, Array]:
        """As `Session.run`; raises `ProcessEndedError` too."""
        self._send(pack(inputs, self._requests))
        message = self._receive()
        try:
            return unpack(message, self._answers, own=True)
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise EngineError("the engine's process gave an answer that cannot be read") from error

    def end(self) -> None:
        """Let it end; does not wait. A second call does nothing."""
        with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as line:  # the other side may be gone
            line.shutdown(socket.SHUT_RDWR)

    def watch(self) -> None:
        """Wait until it ends by itself, or `end` is called."""
        line = select.poll()
        line.register(self._connection.fileno(), 0)  # a hang-up is told unasked
        line.poll()

    def wait(self) -> int:
        """Wait until one that ends is gone; one that takes too long is killed.

        Returns:
            Its exit code, negative for a signal.
        """
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except OSError as error:
            raise ProcessEndedError("the engine's process has ended") from error

    def _receive(self) -> bytes:
        try:
            message = self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise ProcessEndedError("the engine's process ended during the run") from error
        if message[:1] == ERROR:
            raise _error(msgspec.msgpack.decode(message[1:], type=Failure))
        return message[1:]


def how_it_ended(code: int) -> str:
    """An exit code in words: `SIGABRT`, `exit code 3`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _start(bundle: Bundle, fds: tuple[int, int, int]) -> subprocess.Popen[bytes]:
    """What it prints goes to standard error: our own output is the caller's."""
    command = [sys.executable, "-P", "-m", _CHILD, *map(str, fds), f"{bundle.name}:{bundle.version}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=fds, env=environment)  # noqa: S603
    except OSError as error:
        raise EngineError(f"no process for the engine: {error.strerror or error}") from error


def _error(failure: Failure) -> InferloopError:
    kind = getattr(errors, failure.kind, None) if failure.kind else None
    if isinstance(kind, type) and issubclass(kind, InferloopError):
        return kind(failure.message, hint=failure.hint)
    log.error("engine raised %s in its process\n%s", failure.message, failure.trace)
    return EngineError(f"the engine failed with {failure.message}")
