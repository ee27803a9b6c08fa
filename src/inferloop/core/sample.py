"""What arrives: a Message from a source, and the Sample that a codec makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Message(msgspec.Struct, frozen=True, eq=False):
    """Bytes from a source, not decoded yet.

    Attributes:
        source: the name of the source in the pipeline.
        topic: topic, subject or file name; empty where there is none.
        position: a position that the source can return to (file offset, log offset); empty where a broker may reuse it.
        received: when it arrived, seconds since the epoch.
        token: what the source needs to acknowledge it; opaque to everyone else.
    """

    payload: bytes
    source: str
    received: float
    topic: str = ""
    position: str = ""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    token: object = None


class Sample(msgspec.Struct, frozen=True, eq=False):
    """One message or file with its fields named.

    Attributes:
        id: identity of the message; empty if it brings none.
        key: what state and order belong to (device, customer); empty if there is none.
        time: event time, seconds since the epoch; None if it brings none.
        fields: values by name: str, float, bool, bytes (an encoded image or WAV) or a numeric array (a signal).
        raw: the original bytes.
    """

    fields: Mapping[str, Any]
    id: str = ""
    key: str = ""
    time: float | None = None
    raw: bytes = b""
    source: str = ""
    topic: str = ""
