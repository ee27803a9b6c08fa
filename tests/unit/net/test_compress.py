"""Answers that are compressed, and those that are not."""

from __future__ import annotations

import gzip
import zlib

import pytest

from inferloop.net.compress import choose, compress
from inferloop.net.http import Response

LARGE = b'{"data":[0.0]}' * 200


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (b"gzip", "gzip"),
        (b"deflate", "deflate"),
        (b"gzip, deflate, br", "gzip"),
        (b"deflate;q=1.0, gzip;q=0.5", "deflate"),
        (b"gzip;q=0", ""),
        (b"*", "gzip"),
        (b"*;q=0", ""),
        (b"br", ""),
        (b"identity", ""),
        (b"", ""),
        (b"x-gzip", "gzip"),
        (b"gzip;q=nonsense", ""),
        (b"identity;q=1, gzip;q=0.2", ""),
    ],
)
def test_the_client_chooses_the_coding(accepted: bytes, coding: str) -> None:
    assert choose(accepted) == coding


@pytest.mark.parametrize("body", [LARGE, LARGE * 100])
async def test_what_is_compressed_is_the_same_when_undone(body: bytes) -> None:
    zipped = await compress(Response(200, body), b"gzip")
    deflated = await compress(Response(200, body), b"deflate")
    assert gzip.decompress(zipped.body) == zlib.decompress(deflated.body) == body
    assert dict(zipped.headers) == {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}


async def test_a_small_answer_stays_as_it_is() -> None:
    assert (await compress(Response(200, b"x" * 100), b"gzip")).headers == ()


async def test_an_answer_that_has_a_coding_gets_no_second() -> None:
    answer = Response(200, LARGE, (("Content-Encoding", "br"),))
    assert (await compress(answer, b"gzip")).body == LARGE
