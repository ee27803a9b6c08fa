"""Every bad payload becomes a dead letter with its reason and its original bytes, and its neighbours are decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inferloop.core.protocols import Delivery
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.sinks.memory import MemorySink
from inferloop.streams.sources.memory import MemorySource
from support.pipelines import message, numbers_router, open_journal, pipeline

BAD: list[tuple[bytes, str]] = [
    (b"", "the payload is no JSON"),
    (b"\x00\xff\xfe", "the payload is no JSON"),
    (b"hello", "the payload is no JSON"),
    (b'{"id": "x"', "the payload is no JSON"),
    (b"[" * 5000, "nested too deep"),
    (b"5", "must be a JSON object or list"),
    (b"null", "must be a JSON object or list"),
    (message(1, id=None), "the id is missing at $.id"),
    (message(1, id=[1]), "the id"),
    (message(1, device=None), "the key is missing at $.device"),
    (message(1, at=None), "the time is missing at $.at"),
    (message(1, at="yesterday"), "the time"),
    (message(1, values="1,2"), "field 'values' must be a list of numbers"),
    (message(1, values=[1, "x", 3, 4]), "field 'values' must be a list of numbers"),
    (message(1, values=[1, 2]), "the model takes 4"),
    (message(1, values=[1, 2, 3, 4, 5]), "the model takes 4"),
    (message(1, values=None), "'values'"),
    (message(1, total="much"), "field 'total' must be a number"),
    (message(1, order=7), "field 'order' must be text"),
]


@pytest.mark.parametrize(("payload", "reason"), BAD, ids=range(len(BAD)))
async def test_a_bad_payload_is_a_dead_letter_with_its_reason(payload: bytes, reason: str, tmp_path: Path) -> None:
    good = [message(100), message(101)]
    source = MemorySource([good[0], payload, good[1]], SourceContext("demo", "feed"))
    sinks = {name: MemorySink(SinkContext("demo", name)) for name in ("act", "dead_letter")}
    with open_journal(tmp_path) as journal:
        async with numbers_router(tmp_path) as router:
            summary = await pipeline().run(router=router, journal=journal, sources={"feed": source}, sinks=dict(sinks))
    (letter,) = sinks["dead_letter"].received
    assert reason in letter.payload["reason"], letter.payload["reason"]
    assert _original(letter) == payload
    assert (summary.decisions, summary.dead_letters) == (2, 1)
    assert [delivery.message_id for delivery in sinks["act"].received] == ["m100", "m101"]
    assert source.acked == [good[0], payload, good[1]]


def _original(letter: Delivery) -> bytes:
    content: dict[str, Any] = json.loads(json.dumps(dict(letter.payload)))
    if "payload" in content:
        return str(content["payload"]).encode()
    import base64

    return base64.b64decode(content["payload_base64"])
