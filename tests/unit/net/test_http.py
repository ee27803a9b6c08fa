"""Responses on the wire."""

from __future__ import annotations

import json

from inferloop.core.errors import InvalidInput, Overloaded
from inferloop.net.http import Request, Response, encode, error_response, header_text

GET = Request("GET", "/")


def test_an_answer_has_its_length_and_type() -> None:
    data = encode(Response(200, b"{}"), GET, close=False)
    assert data == b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def test_the_answer_to_head_has_the_length_and_no_body() -> None:
    data = encode(Response(200, b"{}"), GET._replace(method="HEAD"), close=True)
    assert data.endswith(b"Content-Length: 2\r\nConnection: close\r\n\r\n")


def test_http_1_0_is_told_that_the_connection_stays() -> None:
    assert b"Connection: keep-alive\r\n" in encode(Response(200), GET._replace(http10=True), close=False)


def test_an_error_is_exactly_one_key_and_its_hint_a_header() -> None:
    response = error_response(InvalidInput("bad \r\nSet-Cookie: x", hint="line one\r\nSet-Cookie: x é"))
    assert json.loads(response.body) == {"error": "bad \r\nSet-Cookie: x"}
    assert response.headers == (("Inferloop-Hint", "line one Set-Cookie: x \\xe9"),)


def test_an_overload_says_when_to_come_back() -> None:
    response = error_response(Overloaded("full", retry_after_s=2.4))
    assert (response.status, dict(response.headers)["Retry-After"]) == (503, "2")


def test_an_unusual_status_is_written() -> None:
    assert encode(Response(499), GET, close=False).startswith(b"HTTP/1.1 499 ")


def test_header_text_is_one_bounded_line() -> None:
    assert header_text("a\n b\t" + "x" * 2000) == "a b " + "x" * 996
