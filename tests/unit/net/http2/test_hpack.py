"""HPACK: the vectors of RFC 7541, the rules, and any sequence of blocks as an independent implementation reads it."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.net.http2 import blocks, huffman
from inferloop.net.http2.hpack import HpackDecoder
from inferloop.net.http2.violation import ErrorCode, Violation

Pairs = list[tuple[bytes, bytes]]

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
REQUESTS = [
    GET,
    [*GET, (b"cache-control", b"no-cache")],
    [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"), GET[3], (b"custom-key", b"custom-value")],
]
C3 = [
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
]
C4 = ["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf", "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"]
DATE = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
PLACE = (b"location", b"https://www.example.com")
COOKIE = b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
RESPONSES = [
    [(b":status", b"302"), (b"cache-control", b"private"), DATE, PLACE],
    [(b":status", b"307"), (b"cache-control", b"private"), DATE, PLACE],
    [
        (b":status", b"200"), (b"cache-control", b"private"), (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"), PLACE,
        (b"content-encoding", b"gzip"), (b"set-cookie", COOKIE),
    ],
]  # fmt: skip


def pairs(decoder: HpackDecoder, block: bytes) -> Pairs | None:
    fields = decoder.decode(block)
    return None if fields is None else [(field.name, field.value) for field in fields]


@pytest.mark.parametrize(
    ("block", "expected", "table_bytes"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header"), 55),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), 0),
        ("100870617373776f726406736563726574", (b"password", b"secret"), 0),
        ("82", (b":method", b"GET"), 0),
    ],
    ids=["C.2.1", "C.2.2", "C.2.3", "C.2.4"],
)
def test_each_kind_of_field_is_read(block: str, expected: tuple[bytes, bytes], table_bytes: int) -> None:
    decoder = HpackDecoder(10_000)
    assert pairs(decoder, bytes.fromhex(block)) == [expected]
    assert decoder.table_bytes == table_bytes


@pytest.mark.parametrize("vectors", [C3, C4], ids=["C.3", "C.4"])
def test_requests_on_one_connection_are_read_with_the_table_that_they_fill(vectors: list[str]) -> None:
    decoder = HpackDecoder(10_000)
    assert [pairs(decoder, bytes.fromhex(block)) for block in vectors] == REQUESTS
    assert decoder.table_bytes == 57 + 53 + 54


@pytest.mark.parametrize("coded", [False, True], ids=["C.5", "C.6"])
def test_entries_leave_a_small_table_in_the_order_in_which_they_came(coded: bool) -> None:
    encoder = hpack.Encoder()
    encoder.header_table_size = 256
    decoder = HpackDecoder(10_000)
    assert [pairs(decoder, encoder.encode(fields, huffman=coded)) for fields in RESPONSES] == RESPONSES
    assert decoder.table_bytes == 215


@pytest.mark.parametrize(("value", "bits", "expected"), [(10, 5, "0a"), (1337, 5, "1f9a0a"), (42, 8, "2a"), (127, 7, "7f00")])
def test_integers_are_written_with_their_prefix(value: int, bits: int, expected: str) -> None:
    assert blocks.integer(value, bits) == bytes.fromhex(expected)


def test_the_huffman_code_of_every_byte_is_read() -> None:
    from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

    assert huffman.codes() == list(REQUEST_CODES)
    assert tuple(REQUEST_CODES_LENGTH) == huffman.LENGTHS
    coder = hpack.Encoder().huffman_coder
    for byte in range(256):
        for other in (0, 65, 255):
            text = bytes((byte, other, byte))
            assert huffman.decode(coder.encode(text)) == text


@pytest.mark.parametrize(
    "coded", [b"\xff\xff\xff\xff", b"\xff", b"\x1c\x7f\xff", b"\x00"], ids=["eos", "long", "longer", "zeros"]
)
def test_wrong_padding_and_the_end_of_string_are_refused(coded: bytes) -> None:
    assert huffman.decode(coded) is None


@pytest.mark.parametrize(
    "block",
    ["80", "be", "ffffffffff7f", "8220", "3fe21f", "40", "4001", "400561", "4001618261", "0085ffffffffff", "7f", "ff"],
    ids=[
        "index 0", "no entry", "long integer", "late resize", "large resize", "no name", "cut", "short", "padding", "eos", "open",
        "open index",
    ],
)  # fmt: skip
def test_a_block_that_breaks_the_rules_ends_the_connection(block: str) -> None:
    with pytest.raises(Violation) as raised:
        HpackDecoder(10_000).decode(bytes.fromhex(block))
    assert raised.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_resize_empties_the_table_and_allows_it_to_grow_again() -> None:
    decoder = HpackDecoder(10_000)
    assert pairs(decoder, bytes.fromhex(C3[0])) == GET
    assert pairs(decoder, bytes.fromhex("20" + "3fe11f" + "82")) == [(b":method", b"GET")]
    assert decoder.table_bytes == 0


def test_a_field_that_is_larger_than_the_table_empties_it() -> None:
    decoder = HpackDecoder(100_000)
    decoder.decode(bytes.fromhex(C3[0]))
    assert pairs(decoder, b"\x40" + blocks.literal(b"a", b"b" * 5000)[1:]) == [(b"a", b"b" * 5000)]
    assert decoder.table_bytes == 0


def test_a_bomb_of_references_yields_no_list_and_leaves_the_table_right() -> None:
    decoder = HpackDecoder(16_384)
    decoder.decode(b"\x40" + blocks.literal(b"a", b"b" * 4000)[1:])
    assert decoder.decode(b"\xbe" * 16_000) is None
    assert pairs(decoder, b"\xbe") == [(b"a", b"b" * 4000)]


FIELDS = st.lists(st.tuples(st.sampled_from([b"a", b"x-y", b":path", b"accept", b"z" * 60]), st.binary(max_size=90)), max_size=9)


@given(st.lists(st.tuples(FIELDS, st.booleans(), st.none() | st.integers(0, 4096)), max_size=12))
def test_any_blocks_are_read_as_another_implementation_wrote_them(sent: list[tuple[Pairs, bool, int | None]]) -> None:
    encoder = hpack.Encoder()
    decoder = HpackDecoder(10**6)
    for fields, coded, size in sent:
        if size is not None:
            encoder.header_table_size = size
        assert pairs(decoder, encoder.encode(fields, huffman=coded)) == fields


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_are_read_as_another_implementation_reads_them_or_refused_by_both(sent: list[bytes]) -> None:
    ours, theirs = HpackDecoder(10**6), hpack.Decoder(max_header_list_size=10**6)
    theirs.max_allowed_table_size = 4096
    for block in sent:
        try:
            expected: Pairs | None = [(bytes(n), bytes(v)) for n, v in theirs.decode(block, raw=True)]
        except hpack.HPACKError:
            expected = None
        try:
            found = pairs(ours, block)
        except Violation:
            found = None
        if expected is None or found is None:
            assert found is None or _is_stricter(block)
            return
        assert found == expected


def _is_stricter(block: bytes) -> bool:
    """The other one refuses what we do not: more than one resize in a row, which is allowed."""
    return any(byte & 0xE0 == 0x20 for byte in block)


@given(st.lists(st.tuples(st.sampled_from([b"grpc-message", b"x"]), st.binary(max_size=400)), max_size=5))
def test_what_we_write_is_read_by_another_implementation(fields: Pairs) -> None:
    block = b"".join(blocks.literal(name, value) for name, value in fields)
    assert [(bytes(n), bytes(v)) for n, v in hpack.Decoder().decode(block, raw=True)] == fields
