"""The access log: one JSON line for each request, of REST and of gRPC; never what was in it."""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from inferloop.core.errors import InvalidInput
from inferloop.serving.batch_writer import BatchWriter

STDERR = "-"
_ID_LENGTH = 128
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+=@")
_TEXT_LENGTH = 512


class Access(NamedTuple):
    """One request that was answered.

    Attributes:
        time: when it came in, seconds since the epoch.
        method: of HTTP, or `grpc`.
        path: as sent, without the query; the method of gRPC.
        status: of HTTP, or the name of the status of gRPC.
        duration_s: until its answer was ready.
        bytes_in: of its body.
        bytes_out: of the answer's.
        peer: the client's address.
        request_id: the client's, or one that was made.
        prediction_id: empty where nothing was predicted.
        model: empty where none was asked for.
    """

    time: float
    method: str
    path: str
    status: int | str
    duration_s: float
    bytes_in: int
    bytes_out: int
    peer: str = ""
    request_id: str = ""
    prediction_id: str = ""
    model: str = ""


class AccessLog:
    """Takes a line from the event loop; a thread writes them, many at once.

    Args:
        target: the path of a file, which is appended to, or `-` for stderr.

    Raises:
        InvalidInput: the file cannot be opened.
    """

    def __init__(self, target: str) -> None:
        self._file: BinaryIO | None = None
        if target != STDERR:
            try:
                self._file = Path(target).open("ab")  # noqa: SIM115 - open as long as the server
            except OSError as error:
                raise InvalidInput(f"the access log {target!r} cannot be written: {error.strerror}") from error
        self._writer: BatchWriter[Access] = BatchWriter(self._write, name="inferloop-access")

    def record(self, access: Access) -> None:
        """Take one line; returns at once. Lines are dropped when the disk is too slow for them."""
        self._writer.append(access)

    def close(self) -> None:
        """Write what waits. A second call does nothing."""
        self._writer.close()
        if self._file is not None:
            self._file.close()

    def _write(self, lines: list[Access]) -> None:
        text = b"".join(msgspec.json.encode(_plain(line)) + b"\n" for line in lines)
        stream = sys.stderr.buffer if self._file is None else self._file
        stream.write(text)
        stream.flush()


def request_id(given: str) -> str:
    """The client's id if it is one that may stand in logs and headers; else one that is made."""
    if given and len(given) <= _ID_LENGTH and _ID_CHARACTERS.issuperset(given):
        return given
    return secrets.token_hex(8)


def _plain(line: Access) -> dict[str, object]:
    content: dict[str, object] = {
        name: value[:_TEXT_LENGTH] if isinstance(value, str) else value for name, value in line._asdict().items()
    }
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(line.time))
    return {**content, "time": f"{stamp}.{int(line.time % 1 * 1000):03d}Z", "duration_s": round(line.duration_s, 6)}
