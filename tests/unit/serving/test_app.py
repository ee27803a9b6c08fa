"""The application without a transport: what it answers when something behind it breaks."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from inferloop.core.errors import Overloaded
from inferloop.net.http import Request, Response
from inferloop.serving.rest.app import App
from inferloop.serving.services import Services


class Broken:
    """A router of which every call fails with `error`."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def models(self) -> list[Any]:
        raise self.error


async def ask(error: Exception, method: str, path: str, body: bytes = b"") -> Response:
    return await App(Services(Broken(error))).handle(Request(method, path, "", {}, body))  # type: ignore[arg-type]


async def test_a_defect_is_a_500_without_detail_and_a_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        reply = await ask(RuntimeError("secret"), "GET", "/v2/models")
    assert (reply.status, json.loads(reply.body)) == (500, {"error": "internal error"})
    assert "secret" in caplog.text


async def test_an_expected_error_is_its_status_message_and_hint() -> None:
    reply = await ask(Overloaded("full", hint="later", retry_after_s=3), "GET", "/v2/models")
    assert (reply.status, json.loads(reply.body)) == (503, {"error": "full"})
    assert dict(reply.headers) == {"Retry-After": "3", "Inferloop-Hint": "later"}


async def test_without_a_ledger_feedback_is_501() -> None:
    body = b'[{"prediction_id": "a", "label": "b"}]'
    assert (await ask(RuntimeError(), "POST", "/v2/feedback", body)).status == 501


async def test_a_live_server_says_so_even_when_nothing_behind_it_works() -> None:
    assert (await ask(RuntimeError(), "GET", "/v2/health/live")).status == 200
