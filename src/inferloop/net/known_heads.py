"""Heads of requests that were read before: a client that stays sends the same bytes again and again, and means the same."""

from __future__ import annotations

from typing import NamedTuple

from inferloop.net.http import Request

_MOST = 256
_LONGEST = 2048
_BODY_BYTES = 16 * 1024
_UNLIKE = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
_END = b"\r\n\r\n"


class _Head(NamedTuple):
    """What the parser made of a head, and how many bytes of body it announces."""

    request: Request
    length: int


class KnownHeads:
    """Requests by the bytes of their head, up to a bound; only of such as came in one piece with a short body or none.

    It holds exactly what the parser made of the same bytes at the start of a message, under the same limits. One event loop;
    the connections of a server share it.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, _Head] = {}

    def request(self, data: bytes, subject: str, peer: str) -> Request | None:
        """The request that these bytes are, no more and no less, if its head is known.

        Args:
            data: read at the start of a message.
            subject: of this connection, see `Request`.
            peer: of this connection, see `Request`.
        """
        end = data.find(_END, 0, _LONGEST) + 4
        head = self._heads.get(data[:end]) if end > 4 else None
        if head is None or len(data) - end != head.length:
            return None
        method, path, query, headers, _, keep_alive, http10, _, _ = head.request
        return Request(method, path, query, headers, data[end:], keep_alive, http10, subject, peer)

    def learn(self, data: bytes, request: Request) -> None:
        """Remember what the parser made of `data`, which were one request."""
        length = len(request.body)
        end = len(data) - length
        if end > _LONGEST or length > _BODY_BYTES or not request.keep_alive or request.http10:
            return
        if data.find(_END) != end - 4 or not _UNLIKE.isdisjoint(request.headers):
            return
        if len(self._heads) >= _MOST:
            self._heads.clear()
        self._heads[data[:end]] = _Head(request._replace(body=b"", subject="", peer=""), length)
