"""An answer that is observed: its id, its line, whatever became of it."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path

import pytest

from inferloop.core.work import Drive, Settled
from inferloop.net.http import Request, Response
from inferloop.serving.access import AccessLog
from inferloop.serving.rest.observed import REQUEST_ID, Observed

REQUEST = Request("POST", "/v2/models/m/infer", headers={REQUEST_ID: b"mine"}, body=b"12345")


async def test_the_answer_has_the_id_of_its_request() -> None:
    response = await Observed(Settled(Response(200, b"ok")), REQUEST, "m", None)
    assert dict(response.headers)["X-Request-Id"] == "mine"


async def test_a_request_that_is_called_off_has_a_line_too(tmp_path: Path) -> None:
    async def endless() -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    log = AccessLog(tmp_path / "access.jsonl")
    heard: list[object] = []
    work = Observed(Drive(endless()), REQUEST, "m", log)
    work.start(lambda _, error: heard.append(error))
    work.cancel()
    while not heard:
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        raise heard[0]  # type: ignore[misc]  # is an error
    log.close()
    line = json.loads((tmp_path / "access.jsonl").read_text())
    assert (line["status"], line["request_id"], line["model"], line["bytes_in"]) == (499, "mine", "m", 5)


def test_it_leaves_nothing_for_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            Observed(Settled(Response(200, b"ok")), REQUEST, "m", None).start(lambda *_: None)
        assert gc.collect() < 50
    finally:
        gc.enable()
