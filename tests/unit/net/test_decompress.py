"""Content-Encoding: undone, and bounded."""

from __future__ import annotations

import gzip
import zlib

import pytest

from inferloop.core.errors import InvalidInput, TooLarge
from inferloop.net.decompress import UnknownEncoding, decompress

TEXT = b"inferloop " * 5000
RAW = zlib.compressobj(wbits=-15)
RAW_DEFLATE = RAW.compress(TEXT) + RAW.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("X-GZIP", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", RAW_DEFLATE),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT, compresslevel=0)),
    ],
)
async def test_every_encoding_gives_the_body_back(encoding: str, body: bytes) -> None:
    assert await decompress(body, encoding, limit=len(TEXT)) == TEXT


@pytest.mark.parametrize("size", [100_000, 20_000_000])
async def test_a_bomb_is_refused_at_the_limit(size: int) -> None:
    with pytest.raises(TooLarge, match="more than 50000 bytes"):
        await decompress(gzip.compress(b"\0" * size), "gzip", limit=50_000)


@pytest.mark.parametrize("body", [b"not gzip", gzip.compress(TEXT)[:-9], b"\x1f\x8b"])
async def test_a_body_that_is_not_what_it_says_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        await decompress(body, "gzip", limit=10**6)


async def test_an_unknown_encoding_is_415() -> None:
    with pytest.raises(UnknownEncoding) as caught:
        await decompress(b"", "br", limit=10)
    assert caught.value.status == 415
