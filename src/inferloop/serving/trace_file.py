"""Files of traces as Triton writes them: one JSON array, complete whenever somebody looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from inferloop.serving.batch_writer import BatchWriter
from inferloop.serving.tally import Tally

_END = b"\n]\n"


class Trace(NamedTuple):
    """One traced request.

    Attributes:
        number: counts the traces of this server from 1; 0 until it is written.
        request_id: the client's; empty without one.
        stations: what happened when, in nanoseconds since the epoch, in order.
    """

    number: int
    model: str
    version: int
    request_id: str
    stations: tuple[tuple[str, int], ...]


class TraceFiles:
    """Appends traces to files of one folder, in a thread.

    Args:
        folder: where all of them lie; made if it is not there.
        tally: numbers the traces, and tells which files this server has begun; with several workers, one for all.
    """

    def __init__(self, folder: Path, tally: Tally) -> None:
        self._folder = folder
        self._tally = tally
        self._writer: BatchWriter[tuple[str, Trace]] = BatchWriter(self._write, name="inferloop-trace")

    def append(self, name: str, trace: Trace) -> None:
        """Take one; `name` is a bare file name. Returns at once."""
        self._writer.append((name, trace))

    def flush(self) -> None:
        """Write what waits. Blocks."""
        self._writer.flush()

    def close(self) -> None:
        """Write what waits and end the thread."""
        self._writer.close()

    def _write(self, traces: list[tuple[str, Trace]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        by_name: dict[str, list[Trace]] = {}
        for name, trace in traces:
            by_name.setdefault(name, []).append(trace)
        first = self._tally.add("traces", len(traces)) - len(traces) + 1
        numbers = iter(range(first, first + len(traces)))
        for name, some in by_name.items():
            with self._tally.alone():
                anew = self._tally.add(f"file {name}") == 1
                _extend(self._folder / name, [trace._replace(number=next(numbers)) for trace in some], anew=anew)


def _extend(path: Path, traces: list[Trace], *, anew: bool) -> None:
    """Put traces before the closing bracket; a file that an earlier server left is begun anew."""
    text = ",\n".join(json.dumps(item) for trace in traces for item in _items(trace)).encode()
    if anew or not path.exists():
        path.write_bytes(b"[\n" + text + _END)
        return
    with path.open("r+b") as file:
        file.seek(-len(_END), 2)
        file.write(b",\n" + text + _END)


def _items(trace: Trace) -> tuple[dict[str, object], dict[str, object]]:
    head: dict[str, object] = {"id": trace.number, "model_name": trace.model, "model_version": trace.version}
    if trace.request_id:
        head["request_id"] = trace.request_id
    return head, {"id": trace.number, "timestamps": [{"name": name, "ns": ns} for name, ns in trace.stations]}
