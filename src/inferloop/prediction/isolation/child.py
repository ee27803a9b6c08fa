"""The other process: loads one model and runs what it is sent, until its parent closes the line or is gone.

parent ── setup (pickle, from our own parent only) ──> load ──> b"A" ready, or b"E" why not
parent ── tensors ──> Session.run ──> b"A" tensors, or b"E" error                          again and again
"""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import select
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection

import msgspec

from inferloop.core import plugins
from inferloop.core.errors import InferloopError
from inferloop.core.protocols import Engine, Session
from inferloop.prediction.isolation.messages import ANSWER, ERROR, Failure, Setup
from inferloop.prediction.isolation.region import Region
from inferloop.prediction.isolation.tensors import pack, unpack

_LAST_WORDS_S = 1.0


def main() -> None:
    """Serve the line whose descriptor is the first argument; the next two are the regions for requests and answers."""
    faulthandler.enable()
    logging.basicConfig(level=logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's, which is meant for the parent
    line, requests, answers = (int(argument) for argument in sys.argv[1:4])
    for fd in (line, requests, answers):
        os.set_inheritable(fd, False)
    threading.Thread(target=_end_with_parent, args=(line,), name="inferloop-parent", daemon=True).start()
    with Connection(line) as connection:
        try:
            _serve(connection, Region(requests), Region(answers))
        except (EOFError, OSError):  # the parent closed the line
            return


def _serve(connection: Connection, requests: Region, answers: Region) -> None:
    try:
        session = _load(pickle.loads(connection.recv_bytes()))  # noqa: S301 - our own parent made it
    except Exception as error:  # the parent says it to whoever asked for the model
        connection.send_bytes(_failure(error))
        return
    connection.send_bytes(ANSWER)
    try:
        while True:
            connection.send_bytes(_run(session, connection.recv_bytes(), requests, answers))
    finally:
        session.close()


def _load(setup: Setup) -> Session:
    engine: Engine = plugins.load("engines", setup.target.engine)()
    return engine.load(setup.bundle, setup.target)


def _run(session: Session, message: bytes, requests: Region, answers: Region) -> bytes:
    try:
        return ANSWER + pack(session.run(unpack(message, requests, own=False)), answers)
    except Exception as error:  # whatever an engine raises, the parent gets an answer
        return _failure(error)


def _failure(error: Exception) -> bytes:
    if isinstance(error, InferloopError):
        failure = Failure(type(error).__name__, error.message, error.hint)
    else:
        failure = Failure("", type(error).__name__, trace="".join(traceback.format_exception(error)))
    return ERROR + msgspec.msgpack.encode(failure)


def _end_with_parent(line: int) -> None:
    """Also in the middle of a run: nobody waits for it any more."""
    watch = select.poll()
    watch.register(line, 0)  # a hang-up is told unasked
    watch.poll()
    time.sleep(_LAST_WORDS_S)  # an idle one has ended by itself by now
    os._exit(0)


if __name__ == "__main__":
    main()
