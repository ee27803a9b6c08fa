"""Header blocks of requests: decoded, remembered where they repeat, and answered where they reach no method."""

from __future__ import annotations

from inferloop.core.errors import DeadlineExceeded, InferloopError, InvalidInput, TooLarge, Unsupported
from inferloop.net.http2 import blocks, head
from inferloop.net.http2.fields import Field, Kind
from inferloop.net.http2.hpack import HpackDecoder
from inferloop.net.http2.violation import Malformed

_HEADS = 64
_HEAD_BYTES = 1024
_SHAPES = 16
_SHAPE_FIELDS = 24
_SOME_TIMEOUT = Field(b"grpc-timeout", b"1S")


class Requests:
    """Reads the blocks of one connection.

    A block that leaves the table as it is means the same until the table changes: it is read once. Any change forgets all.

    Clients put a new deadline into each call, and with it into the table. So what the other fields of a list mean, its shape, is
    kept by the fields themselves: the entries of the table, which stay what they are while their numbers move.

    Attributes:
        decoder: the connection's; trailers go through it, too.
    """

    __slots__ = ("_heads", "_heads_at", "_shapes", "decoder")

    def __init__(self, decoder: HpackDecoder) -> None:
        self.decoder = decoder
        self._heads: dict[bytes, head.Head] = {}
        self._heads_at = 0
        self._shapes: dict[tuple[Field, ...], head.Head] = {}

    def read(self, block: bytes) -> head.Head | None:
        """What a request's block says; None if its list is too large.

        Raises:
            Malformed: the request breaks the rules of HTTP/2.
            Violation: COMPRESSION_ERROR.
        """
        before = self.decoder.changes
        if self._heads_at == before and (known := self._heads.get(block)) is not None:
            return known
        fields = self.decoder.decode(block)
        if fields is None:
            return None
        fresh = self.decoder.fresh
        if fresh >= 0 and fields[fresh].kind is Kind.TIMEOUT:
            return self._timed(fields, fresh)
        found = head.read(fields)
        changes = self.decoder.changes
        if self._heads_at != changes or len(self._heads) >= _HEADS:
            self._heads.clear()
            self._heads_at = changes
        if before == changes and len(block) <= _HEAD_BYTES:
            self._heads[block] = found
        return found

    def _timed(self, fields: list[Field], place: int) -> head.Head:
        """A list whose only new field is the deadline, at `place`."""
        timeout_s = head.parse_timeout(fields[place].value)
        fields[place] = _SOME_TIMEOUT
        key = tuple(fields)
        shape = self._shapes.get(key)
        if shape is None:
            shape = head.read(fields)
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            if len(key) <= _SHAPE_FIELDS:
                self._shapes[key] = shape
        return head.Head(shape.path, shape.metadata, timeout_s, shape.encoding, shape.refusal, timeout_s is None)


def judge(found: head.Head | None, header_bytes: int) -> bytes | None:
    """The answer to a request that reaches no method, as a header block; None if it may."""
    if found is None:
        return _status(TooLarge(f"the headers are more than {header_bytes} bytes"))
    if found.refusal:
        return blocks.refusal(found.refusal)
    if found.encoding not in head.ENCODINGS:
        return _status(Unsupported(f"grpc-encoding {found.encoding!r} is not known")) + blocks.ACCEPTED
    if found.bad_timeout:
        return _status(InvalidInput("grpc-timeout is at most eight digits and one of H M S m u n"))
    if found.timeout_s == 0:
        return _status(DeadlineExceeded("the deadline of the call has passed"))
    return None


def no_method(found: head.Head | None) -> bytes:
    """The answer to a path that nobody serves."""
    return _status(Unsupported(f"no method {found.path if found is not None else ''!r}"))


def are_trailers(fields: list[Field]) -> bool:
    """Whether a header list may end a request."""
    try:
        head.check_trailers(fields)
    except Malformed:
        return False
    return True


def _status(error: InferloopError) -> bytes:
    return blocks.HEADERS_OK + blocks.error(error)
