"""From samples of a sensor to the signal that the model asks for: one buffer a key, cut at every hop.

    sample, sample, sample ──> buffer of the key ──length──> window ──> model
                                     ^────────── hop ────────┘

A sample is a message with one value or several, of one channel or several. Everything here is in memory and plain data; who
calls it makes it durable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput
from inferloop.core.sample import Message, Sample

BUFFER = "window/buffer|"
DUE = "window/due/"
GATHERED = "gathered"
LATE = "late for its window"


class _Stored(msgspec.Struct):
    """A buffer or a window as the journal keeps it: the numbers float64, rows of `widths` columns."""

    ids: list[str]
    counts: list[int]
    time: float
    values: dict[str, bytes]
    widths: dict[str, int]
    skip: int = 0
    fields: dict[str, Any] = {}
    offset: int = 0
    source: str = ""
    topic: str = ""
    received: float = 0.0


@dataclass(slots=True)
class _Buffer:
    """What one key has gathered.

    Attributes:
        ids: of the samples in it; `counts` says how many of the values are left of each.
        offset: how many values of the first sample were cut off.
        skip: values still to be left out, where a hop is longer than a window.
        time: event time of the newest sample.
    """

    ids: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    values: dict[str, Array] = field(default_factory=dict)
    offset: int = 0
    skip: int = 0
    time: float = float("-inf")

    def __len__(self) -> int:
        return sum(self.counts)

    def cut(self, count: int) -> None:
        """Drop values from its beginning."""
        self.values = {name: rows[count:] for name, rows in self.values.items()}
        while count and self.counts:
            taken = min(count, self.counts[0])
            count -= taken
            self.counts[0] -= taken
            self.offset += taken
            if not self.counts[0]:
                del self.counts[0], self.ids[0]
                self.offset = 0


@dataclass(frozen=True, slots=True)
class Window:
    """A whole window: a message of its own, whose id follows from its samples.

    Attributes:
        due: the name under which the journal keeps it until it is decided.
    """

    id: str
    due: str
    sample: Sample
    origin: Message


class Windows:
    """The buffers of one pipeline, by key. Used by one thread at a time.

    Args:
        fields: those that are gathered, arrays in a window; every other field has the value of the window's last sample.
        length: values in a window.
        hop: values from the beginning of one window to that of the next.
        gap_s: a longer pause between two samples begins anew; None for never.
        stored: what the journal keeps, as `take_changes` gave it.
    """

    def __init__(
        self,
        fields: Sequence[str],
        *,
        length: int,
        hop: int,
        by: str = "key",
        gap_s: float | None = None,
        stored: Mapping[str, bytes] | None = None,
    ) -> None:
        self._fields = tuple(fields)
        self._length = length
        self._hop = hop
        self._by = by
        self._gap_s = gap_s
        self._changed: dict[str, bytes] = {}
        kept = stored or {}
        self._buffers = {name.removeprefix(BUFFER): _unpacked(raw) for name, raw in kept.items() if name.startswith(BUFFER)}
        self._due = [_window(name, raw) for name, raw in kept.items() if name.startswith(DUE)]

    def take_due(self) -> list[Window]:
        """Windows of an earlier run that were not decided."""
        due, self._due = sorted(self._due, key=lambda window: window.origin.received), []
        return due

    def add(self, identity: str, sample: Sample, message: Message, time: float) -> tuple[str, list[Window]]:
        """Take one sample.

        Args:
            identity: the id of its message.
            sample: what it holds.
            message: as it came.
            time: its event time.

        Returns:
            What became of it, and the windows that it completes.

        Raises:
            InvalidInput: a field is missing or no number; nothing was taken.
        """
        key = self._key(sample)
        values = self._values(sample)
        buffer = self._buffers.setdefault(key, _Buffer())
        if time < buffer.time:
            return LATE, []
        if self._gap_s is not None and time - buffer.time > self._gap_s and buffer.counts:
            buffer = self._buffers[key] = _Buffer()
        _extend(buffer, identity, values, time)
        windows = list(self._cut(buffer, key, sample, message))
        self._changed[f"{BUFFER}{key}"] = _packed(buffer)
        return GATHERED, windows

    def take_changes(self) -> dict[str, bytes]:
        """The entries changed since the last call, as the journal stores them."""
        changed, self._changed = self._changed, {}
        return changed

    def _cut(self, buffer: _Buffer, key: str, sample: Sample, message: Message) -> Iterator[Window]:
        while len(buffer) >= self._length:
            name, raw = self._kept(buffer, key, sample, message)
            self._changed[name] = raw
            yield _window(name, raw)
            buffer.skip = max(0, self._hop - len(buffer))
            buffer.cut(min(self._hop, len(buffer)))

    def _kept(self, buffer: _Buffer, key: str, sample: Sample, message: Message) -> tuple[str, bytes]:
        covered, last = 0, 0
        while covered < self._length:
            covered += buffer.counts[last]
            last += 1
        ids = [buffer.ids[0], buffer.ids[last - 1]]
        identity = hashlib.sha256("|".join((key, *ids, str(buffer.offset))).encode()).hexdigest()
        plain = ((name, value) for name, value in sample.fields.items() if isinstance(value, str | int | float))
        rest = {name: value for name, value in plain if name not in self._fields}
        stored = _Stored(
            ids=ids,
            counts=[self._length],
            time=buffer.time,
            values={name: rows[: self._length].tobytes() for name, rows in buffer.values.items()},
            widths={name: rows.shape[1] for name, rows in buffer.values.items()},
            fields=rest,
            source=sample.source,
            topic=sample.topic,
            received=message.received,
        )
        return f"{DUE}{identity}|{sample.key}", msgspec.msgpack.encode(stored)

    def _key(self, sample: Sample) -> str:
        value = sample.key if self._by == "key" else sample.fields.get(self._by)
        if value is None:
            raise InvalidInput(f"field {self._by!r}, by which windows are kept, is missing")
        return str(value)

    def _values(self, sample: Sample) -> dict[str, Array]:
        values: dict[str, Array] = {}
        for name in self._fields:
            value = sample.fields.get(name)
            if value is None:
                raise InvalidInput(f"field {name!r} of the window is missing")
            rows = np.asarray(value)
            if rows.dtype.kind not in "biuf" or rows.ndim > 2:
                raise InvalidInput(f"field {name!r} of the window must be numbers [time] or [time, channels]")
            values[name] = rows.astype(np.float64).reshape(-1, rows.shape[1] if rows.ndim == 2 else 1)
        lengths = {name: len(rows) for name, rows in values.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidInput(f"the fields of the window have different lengths: {lengths}")
        return values


def _extend(buffer: _Buffer, identity: str, values: Mapping[str, Array], time: float) -> None:
    for name, rows in values.items():
        before = buffer.values.get(name)
        if before is not None and len(before) and before.shape[1] != rows.shape[1]:
            raise InvalidInput(f"field {name!r} had {before.shape[1]} channels, now {rows.shape[1]}")
    skipped = min(buffer.skip, len(next(iter(values.values()))))
    buffer.skip -= skipped
    buffer.time = time
    for name, rows in values.items():
        before = buffer.values.get(name)
        added = rows[skipped:]
        buffer.values[name] = added.copy() if before is None or not len(before) else np.concatenate([before, added])
    count = len(next(iter(values.values()))) - skipped
    if count:
        if not buffer.ids:
            buffer.offset = skipped
        buffer.ids.append(identity)
        buffer.counts.append(count)


def _packed(buffer: _Buffer) -> bytes:
    values = {name: rows.tobytes() for name, rows in buffer.values.items()}
    widths = {name: rows.shape[1] for name, rows in buffer.values.items()}
    stored = _Stored(buffer.ids, buffer.counts, buffer.time, values, widths, skip=buffer.skip, offset=buffer.offset)
    return msgspec.msgpack.encode(stored)


def _unpacked(raw: bytes) -> _Buffer:
    stored = msgspec.msgpack.decode(raw, type=_Stored)
    return _Buffer(stored.ids, stored.counts, _rows(stored), stored.offset, stored.skip, stored.time)


def _rows(stored: _Stored) -> dict[str, Array]:
    return {name: np.frombuffer(raw, np.float64).reshape(-1, stored.widths[name]) for name, raw in stored.values.items()}


def _window(name: str, raw: bytes) -> Window:
    """A window from what is kept of it, so that one of an earlier run is the same to the bit."""
    stored = msgspec.msgpack.decode(raw, type=_Stored)
    identity, _, key = name.removeprefix(DUE).partition("|")
    arrays = {name: rows[:, 0] if rows.shape[1] == 1 else rows for name, rows in _rows(stored).items()}
    first, last = stored.ids
    told = msgspec.json.encode({"window": identity, "key": key, "first": first, "last": last, "values": stored.counts[0]})
    sample = Sample({**stored.fields, **arrays}, identity, key, stored.time, told, stored.source, stored.topic)
    return Window(identity, name, sample, Message(told, stored.source, stored.received, topic=stored.topic))
