"""Decodes header blocks (RFC 7541). One decoder a connection, because the client fills its table as it goes.

block:  1xxxxxxx indexed | 01xxxxxx literal, kept | 001xxxxx table size | 0000xxxx, 0001xxxx literal, not kept
"""

from __future__ import annotations

from inferloop.net.http2 import huffman
from inferloop.net.http2.fields import Field
from inferloop.net.http2.violation import ErrorCode, Violation

_STATIC = """\
:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate
"""


def _field(line: str) -> Field:
    name, _, value = line.encode("ascii").partition(b" ")
    return Field(name, value)


STATIC = [Field(b"\0", b""), *(_field(line) for line in _STATIC.splitlines())]
"""Index 0 is no field; 1 to 61 are those of Appendix A."""

_FIRST = len(STATIC)
_MAX_INTEGER_BYTES = 5
TABLE_BYTES = 4096
"""The largest table that we allow the client, HPACK's default."""


class HpackDecoder:
    """Header blocks to fields.

    Attributes:
        changes: how often the table has changed; a block that leaves it as it was decodes the same until it moves.
        fresh: which field of the last block was a literal, by its place in the list; -1 for none, or for several.
        table_bytes: the size of the dynamic table as HPACK counts it.
    """

    __slots__ = ("_limit", "_list_bytes", "_table", "changes", "fresh", "table_bytes")

    def __init__(self, list_bytes: int) -> None:
        """Set up.

        Args:
            list_bytes: the most that a header list may hold, 32 bytes a field beside name and value.
        """
        self._table = list(STATIC)
        self._limit = TABLE_BYTES
        self._list_bytes = list_bytes
        self.table_bytes = 0
        self.changes = 0
        self.fresh = -1

    def decode(self, block: bytes) -> list[Field] | None:
        """Decode one whole block, in order; None if the list is too large (the table is kept right all the same).

        Raises:
            Violation: COMPRESSION_ERROR; the connection cannot go on.
        """
        try:
            return self._decode(block)
        except IndexError:
            raise Violation(ErrorCode.COMPRESSION_ERROR, "the header block ends too early, or names no field") from None

    def _decode(self, block: bytes) -> list[Field] | None:
        table = self._table
        fields: list[Field] = []
        size = 0
        at = literals = 0
        end = len(block)
        self.fresh = -1
        while at < end:
            byte = block[at]
            if byte > 0x80 and byte != 0xFF:
                field = table[byte & 0x7F]
                at += 1
            elif byte & 0xE0 == 0x20:
                at = self._resize(block, at, allowed=not fields)
                continue
            elif byte & 0x80:
                index, at = _integer(block, at, 0x7F)
                field = table[self._known(index)]
            else:
                literals += 1
                self.fresh = len(fields) if literals == 1 else -1
                field, at = self._literal(block, at, 0x3F if byte & 0x40 else 0x0F)
                if byte & 0x40:
                    self._keep(field)
            size += field.size
            fields.append(field)
        return fields if size <= self._list_bytes else None

    def _literal(self, block: bytes, at: int, mask: int) -> tuple[Field, int]:
        index = block[at] & mask
        if index == mask:
            index, at = _integer(block, at, mask)
        else:
            at += 1
        if index:
            name = self._table[index].name
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        return Field(name, value), at

    def _known(self, index: int) -> int:
        if index == 0:
            raise Violation(ErrorCode.COMPRESSION_ERROR, "index 0 names no field")
        return index

    def _keep(self, field: Field) -> None:
        self.changes += 1
        if self.table_bytes + field.size > self._limit:
            self._evict(self._limit - field.size)
        if field.size <= self._limit:
            self._table.insert(_FIRST, field)
            self.table_bytes += field.size

    def _evict(self, limit: int) -> None:
        """Drop the oldest until at most `limit` bytes are left."""
        table = self._table
        while self.table_bytes > limit and len(table) > _FIRST:
            self.table_bytes -= table.pop().size

    def _resize(self, block: bytes, at: int, *, allowed: bool) -> int:
        limit, at = _integer(block, at, 0x1F)
        if not allowed or limit > TABLE_BYTES:
            raise Violation(ErrorCode.COMPRESSION_ERROR, "a table size where none may stand, or above the limit")
        self.changes += 1
        self._limit = limit
        self._evict(limit)
        return at


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """A prefixed integer (5.1) and where it ends."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 7 * _MAX_INTEGER_BYTES, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Violation(ErrorCode.COMPRESSION_ERROR, "an integer of the header block is too long")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """A string literal (5.2) and where it ends."""
    byte = block[at]
    length = byte & 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    else:
        at += 1
    end = at + length
    if end > len(block):
        raise Violation(ErrorCode.COMPRESSION_ERROR, "a string of the header block ends too early")
    text = block[at:end]
    if byte < 0x80:
        return text, end
    plain = huffman.decode(text)
    if plain is None:
        raise Violation(ErrorCode.COMPRESSION_ERROR, "a string of the header block is no Huffman code")
    return plain, end
