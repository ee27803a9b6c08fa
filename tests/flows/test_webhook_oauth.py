"""Webhooks with tokens that a server gives, lets end and takes back; no log line has the secret or a token in it."""

from __future__ import annotations

import base64
import logging
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery
from inferloop.streams.contexts import SinkContext
from inferloop.streams.http_caller import without_address
from inferloop.streams.sinks.webhook import WebhookSink
from support.broker import free_port

SECRET = "ge/he im&ü"


class Service:
    """A token server and the service that takes its tokens."""

    def __init__(self) -> None:
        self.url = ""
        self.valid: set[str] = set()
        self.asked: list[dict[str, str]] = []
        self.asked_with: list[dict[str, str]] = []
        self.keys: list[str] = []
        self.refusals = 0
        self.answer: dict[str, Any] = {"token_type": "bearer", "expires_in": 3600}
        self.status = 200
        self.delivered_status = 200

    async def token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append(form)
        self.asked_with.append(dict(request.headers))
        if self.status != 200:
            return web.json_response({"error": "invalid_client", "error_description": f"not {SECRET}"}, status=self.status)
        if "access_token" in self.answer:
            return web.json_response(self.answer)
        token = f"geheim-{len(self.asked)}"
        self.valid.add(token)
        return web.json_response({"access_token": token, **self.answer})

    async def deliver(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.valid:
            self.refusals += 1
            return web.Response(status=401, text=f"{token} is not valid")
        if self.delivered_status != 200:
            return web.Response(status=self.delivered_status, text=f"{token} may not", headers={"Retry-After": "1"})
        self.keys.append(request.headers["Idempotency-Key"])
        return web.Response()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    app = web.Application()
    app.router.add_post("/token", service.token)
    app.router.add_post("/deliver", service.deliver)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield service
    await runner.cleanup()


@pytest.fixture
async def sink(service: Service) -> AsyncIterator[WebhookSink]:
    sink = made(service, scope="deliver refunds")
    await sink.open()
    yield sink
    await sink.close()


def made(service: Service, **options: Any) -> WebhookSink:
    oauth = {"token_url": f"{service.url}/token", "client_id": "me:1", "client_secret": SECRET, **options}
    headers = {"X-Key": "for the service alone"}
    return WebhookSink(WebhookSink.Config(url=f"{service.url}/deliver", oauth=oauth, headers=headers), SinkContext("p", "act"))


def delivery(key: str) -> list[Delivery]:
    return [Delivery(key, {"a": 1}, key)]


async def test_one_token_serves_many_deliveries(service: Service, sink: WebhookSink) -> None:
    for key in "abc":
        await sink.send(delivery(key))
    assert service.keys == ["a", "b", "c"]
    assert service.asked == [{"grant_type": "client_credentials", "scope": "deliver refunds"}]
    (headers,) = service.asked_with
    login = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
    assert login == "me%3A1:ge%2Fhe%20im%26%C3%BC"
    assert "X-Key" not in headers


async def test_id_and_secret_may_go_in_the_body(service: Service) -> None:
    sink = made(service, auth="body", audience="https://refunds.example.com")
    await sink.open()
    await sink.send(delivery("a"))
    await sink.close()
    who = {"client_id": "me:1", "client_secret": SECRET}
    assert service.asked == [{"grant_type": "client_credentials", "audience": "https://refunds.example.com", **who}]
    assert "Authorization" not in service.asked_with[0]


async def test_a_token_is_renewed_before_it_ends(service: Service, sink: WebhookSink) -> None:
    service.answer["expires_in"] = "1"  # some servers say it as text
    await sink.send(delivery("a"))
    await sink.send(delivery("b"))
    assert len(service.asked) == 1
    time.sleep(0.6)  # more than half of its life
    await sink.send(delivery("c"))
    assert len(service.asked) == 2
    assert (service.keys, service.refusals) == (["a", "b", "c"], 0)


async def test_a_token_that_is_taken_back_is_renewed_once_and_the_delivery_arrives(service: Service, sink: WebhookSink) -> None:
    await sink.send(delivery("a"))
    service.valid.clear()
    await sink.send(delivery("b"))
    assert (service.keys, service.refusals, len(service.asked)) == (["a", "b"], 1, 2)


async def test_a_service_that_takes_no_token_is_tried_again_later_and_told_without_the_token(
    service: Service, sink: WebhookSink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "inferloop")
    service.answer["access_token"] = "geheim-x"
    with pytest.raises(Unavailable, match=r"answered 401: \*\*\* is not valid|answered 401") as caught:
        await sink.send(delivery("a"))
    assert (service.refusals, len(service.asked)) == (2, 2), "one new token, not more"
    assert "geheim" not in str(caught.value)
    assert "geheim" not in str([record.__dict__ for record in caplog.records])


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_a_token_server_that_refuses_is_tried_again_later_and_nothing_is_refused(
    service: Service, sink: WebhookSink, status: int
) -> None:
    service.status = status
    with pytest.raises(Unavailable, match=f"token_url answered {status}: invalid_client$") as caught:
        await sink.send(delivery("a"))
    assert SECRET not in str(caught.value) + repr(sink._config)
    service.status = 200
    await sink.send(delivery("a"))
    assert service.keys == ["a"]


@pytest.mark.parametrize(
    "answer", [{"access_token": ""}, {"access_token": "a\r\nb"}, {"access_token": 5}, {"access_token": "a", "token_type": "mac"}]
)
async def test_an_answer_without_a_bearer_token_is_told(service: Service, sink: WebhookSink, answer: dict[str, Any]) -> None:
    service.answer = answer
    with pytest.raises(Unavailable, match="without a bearer token"):
        await sink.send(delivery("a"))
    assert service.refusals == 0


async def test_a_service_that_says_when_is_left_alone_until_then(service: Service, sink: WebhookSink) -> None:
    service.delivered_status = 503
    with pytest.raises(Unavailable, match=r"\*\*\* may not"):
        await sink.send(delivery("a"))
    service.delivered_status = 200
    began = time.monotonic()
    await sink.send(delivery("a"))
    assert time.monotonic() - began > 0.9


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ConnectionTimeoutError("Connection timeout to host https://chat.example.com/hooks/geheim"),
        aiohttp.InvalidURL("https://chat.example.com/hooks/geheim"),
        aiohttp.NonHttpUrlClientError("https://chat.example.com/hooks/geheim"),
        TimeoutError(),
    ],
)
def test_no_error_says_an_address_that_is_a_password(error: Exception) -> None:
    assert without_address(error)
    assert "geheim" not in without_address(error)


async def test_a_service_that_nobody_listens_at_is_told_by_host_and_port_alone() -> None:
    sink = WebhookSink(WebhookSink.Config(url=f"http://127.0.0.1:{free_port()}/geheim"), SinkContext("p", "act"))
    await sink.open()
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:\d+: ") as caught:
        await sink.send(delivery("a"))
    await sink.close()
    assert "geheim" not in str(caught.value) + repr(sink._config)


async def test_a_service_that_is_not_trusted_gets_nothing_and_is_told_as_that() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    sink = WebhookSink(WebhookSink.Config(url=f"https://127.0.0.1:{runner.addresses[0][1]}/geheim"), SinkContext("p", "act"))
    await sink.open()
    with pytest.raises(Unavailable, match=r"CERTIFICATE_VERIFY_FAILED|certificate") as caught:
        await sink.send(delivery("a"))
    await sink.close()
    await runner.cleanup()
    assert "geheim" not in str(caught.value)


async def test_what_is_refused_for_good_is_not_held_up_by_tokens(service: Service, sink: WebhookSink) -> None:
    service.delivered_status = 403
    with pytest.raises(InvalidInput, match="answered 403"):
        await sink.send(delivery("a"))
