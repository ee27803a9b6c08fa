"""What one model decided goes to another one on a real server: as a record, as tensors, refused, or later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery
from inferloop.streams.contexts import SinkContext, SourceContext
from inferloop.streams.sinks.memory import MemorySink
from inferloop.streams.sinks.model import ModelSink
from inferloop.streams.sources.memory import MemorySource
from support.broker import free_port
from support.bundles import linear, text
from support.pipelines import message, numbers_router, open_journal, pipeline
from support.serving import Running, serving


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path / "there", text(tmp_path / "text"), linear(tmp_path / "linear")) as server:
        yield server


async def sent(url: str, model: str, payload: dict[str, Any], **options: Any) -> None:
    config = ModelSink.Config(server=url, model=model, json={"a": "=id"}, **options)
    sink = ModelSink(config, SinkContext("p", "next"))
    await sink.open()
    try:
        await sink.send([Delivery("k", payload, "m")])
    finally:
        await sink.close()


def predicted(server: Running, model: str) -> int:
    server.ledger.flush()
    return len(list(server.ledger.predictions(model)))


async def test_a_record_goes_through_the_transforms_of_the_other_model(server: Running) -> None:
    await sent(server.url + "/", "text", {"text": "give me my money back"})
    await sent(server.url, "text", {"text": "again"}, version="1")
    assert predicted(server, "text") == 2


@pytest.mark.parametrize(("payload", "reason"), [({"nope": 1}, "no field named 'nope'"), ({"text": 5}, "must be text")])
async def test_what_does_not_fit_the_model_is_refused_with_its_reason(
    server: Running, payload: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=f"answered 400: .*{reason}"):
        await sent(server.url, "text", payload)


async def test_a_model_or_a_server_that_is_not_there_yet_is_tried_again(server: Running) -> None:
    with pytest.raises(Unavailable, match=r"answered 404: .*unknown model: 'later'"):
        await sent(server.url, "later", {"text": "a"})
    with pytest.raises(Unavailable, match="answered 404"):
        await sent(server.url, "text", {"text": "a"}, version="7")
    with pytest.raises(Unavailable, match="Connect"):
        await sent(f"http://127.0.0.1:{free_port()}", "text", {"text": "a"})


async def test_a_pipeline_hands_tensors_on_and_what_the_other_model_refuses_is_a_dead_letter(
    server: Running, tmp_path: Path
) -> None:
    x = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": "=values"}
    act = {
        "model": {"server": server.url, "model": "linear", "json": {"id": "=id", "inputs": [{**x, "shape": "=[1, int(total)]"}]}}
    }
    messages = [message(number, total=9.0 if number == 3 else 4.0) for number in range(6)]
    source, letters = MemorySource(messages, SourceContext("demo", "feed")), MemorySink(SinkContext("demo", "dead_letter"))
    with open_journal(tmp_path) as journal:
        async with numbers_router(tmp_path) as router:
            file = pipeline(sinks={"act": act})
            await file.run(router=router, journal=journal, sources={"feed": source}, sinks={"dead_letter": letters})
    (letter,) = letters.received
    assert "answered 400" in letter.payload["reason"]
    assert predicted(server, "linear") == 5
    assert source.acked == messages
