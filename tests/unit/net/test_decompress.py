"""Content-Encoding: undone, and bounded."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.errors import InvalidInput, TooLarge
from inferloop.net.decompress import UnknownEncoding, decompress, inflate

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


@given(st.lists(st.binary(max_size=3000).map(lambda text: text * 50), max_size=6), st.integers(0, 9))
def test_any_number_of_members_is_one_body(parts: list[bytes], level: int) -> None:
    body = b"".join(gzip.compress(part, level) for part in parts)
    text = b"".join(parts)
    assert inflate(body, "gzip", limit=len(text)) == text
    if text:
        with pytest.raises(TooLarge):
            inflate(body, "gzip", limit=len(text) - 1)


def test_empty_members_are_each_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of all that follows at every member would let a small body cost seconds."""
    seen = 0
    real = zlib.decompressobj

    class Counting:
        def __init__(self, window: int) -> None:
            self._real = real(window)

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def decompress(self, piece: memoryview, most: int) -> bytes:
            nonlocal seen
            seen += len(piece)
            return self._real.decompress(piece, most)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    body = gzip.compress(b"") * 3000
    assert inflate(body, "gzip", limit=10) == b""
    assert seen < 3000 * 1100, "at most a step of each member"
