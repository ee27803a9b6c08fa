"""The reader: any cut of the bytes gives the same requests, and every limit refuses."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.net.http import Request, Response
from inferloop.net.http_reader import Phase, RequestReader
from inferloop.net.known_heads import KnownHeads
from inferloop.net.limits import HttpLimits

POST = b"POST /v2/x?a=1 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-A: trailer\r\n\r\n"
GET = b"GET /g HTTP/1.0\r\n\r\n"


def reader(**limits: int) -> RequestReader:
    return RequestReader(HttpLimits(**limits), clock=lambda: 0.0, expect=lambda: None)


def read(data: bytes, *cuts: int, **limits: int) -> list[Request | Response]:
    parser = reader(**limits)
    edges = [0, *sorted(cuts), len(data)]
    return [item for start, end in pairwise(edges) for item in parser.feed(data[start:end])]


def only_refusal(items: list[Request | Response]) -> int:
    assert len(items) == 1
    assert isinstance(items[0], Response)
    return items[0].status


@given(cuts=st.lists(st.integers(0, len(POST + CHUNKED + GET)), max_size=12))
def test_any_cut_of_the_bytes_gives_the_same_requests(cuts: list[int]) -> None:
    assert read(POST + CHUNKED + GET, *cuts) == read(POST + CHUNKED + GET)


def test_a_request_has_its_parts_and_repeated_headers_are_joined() -> None:
    (request,) = read(POST)
    assert isinstance(request, Request)
    assert (request.method, request.path, request.query, request.body) == ("POST", "/v2/x", "a=1", b"hello")
    assert request.headers[b"x-a"] == b"1, 2"


def test_a_chunked_body_is_joined_and_its_trailers_override_no_header() -> None:
    (request,) = read(CHUNKED)
    assert isinstance(request, Request)
    assert request.body == b"abcde"
    assert b"x-a" not in request.headers


def test_http_1_0_closes_unless_it_asks_to_stay() -> None:
    items = read(GET) + read(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert [item.keep_alive for item in items if isinstance(item, Request)] == [False, True]
    assert isinstance(items[1], Request)
    assert items[1].http10


def test_an_absolute_target_is_read_as_its_path() -> None:
    (request,) = read(b"GET http://h:1/v2?q HTTP/1.1\r\nHost: h\r\n\r\n")
    assert isinstance(request, Request)
    assert (request.path, request.query) == ("/v2", "q")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\x01garbage\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA" + b"b" * 200 + b": 1\r\n\r\n", 431),
        (b"GET /" + b"p" * 200 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 51\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n" + b"x" * 64 + b"\r\n0\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nExpect: magic\r\nContent-Length: 1\r\n\r\n", 417),
    ],
)
def test_what_breaks_a_rule_is_refused(data: bytes, status: int) -> None:
    assert only_refusal(read(data, header_bytes=150, body_bytes=50)) == status


def test_a_header_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    parser = reader(header_bytes=1000)
    items: list[Request | Response] = parser.feed(b"GET / HTTP/1.1\r\nHost: h\r\nA: ")
    for _ in range(20):
        items += parser.feed(b"x" * 100)
    assert only_refusal(items) == 431


def test_trailers_without_end_are_refused() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert only_refusal(read(head + b"X-T: 12345678\r\n" * 100, header_bytes=200)) == 431


def test_nothing_is_read_after_a_refusal() -> None:
    parser = reader()
    assert only_refusal(parser.feed(b"nonsense\r\n\r\n" + GET)) == 400
    assert parser.feed(GET) == []
    assert parser.phase is Phase.OVER


def test_an_upgrade_is_answered_in_http_1_1_and_closes() -> None:
    (request,) = read(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    assert isinstance(request, Request)
    assert request.keep_alive is False


@given(data=st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    reader(header_bytes=100, body_bytes=100).feed(data)


SMALL = b"POST /v2/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"
LAST = b"GET /l HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
PIECES = (
    POST,
    CHUNKED,
    GET,
    LAST,
    SMALL + b"hello",
    SMALL + b"world",
    SMALL[:-2],
    b"\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"x",
)


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
def test_a_head_that_is_known_reads_as_one_that_is_not(pieces: list[bytes]) -> None:
    heads = KnownHeads()
    for _ in range(2):  # the second connection knows what the first has learned
        knowing = RequestReader(HttpLimits(), clock=lambda: 0.0, expect=lambda: None, known=heads)
        plain = reader()
        assert [knowing.feed(piece) for piece in pieces] == [plain.feed(piece) for piece in pieces]
        assert knowing.phase is plain.phase


def test_a_known_head_brings_the_body_and_the_client_of_its_own_request() -> None:
    heads = KnownHeads()
    first, second = (RequestReader(HttpLimits(), clock=lambda: 0.0, expect=lambda: None, known=heads) for _ in range(2))
    first.subject, first.peer, second.peer = "CN=a", "a:1", "b:2"
    (asked,) = first.feed(SMALL + b"hello")
    assert heads.request(SMALL + b"world", "", "") is not None, "it was learned"
    (again,) = second.feed(SMALL + b"world")
    assert isinstance(asked, Request)
    assert again == asked._replace(body=b"world", subject="", peer="b:2")


def test_heads_are_known_up_to_a_bound() -> None:
    heads = KnownHeads()
    parser = RequestReader(HttpLimits(), clock=lambda: 0.0, expect=lambda: None, known=heads)
    for number in range(1000):
        parser.feed(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
    known = [number for number in range(1000) if heads.request(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number, "", "")]
    assert 999 in known
    assert len(known) <= 256
