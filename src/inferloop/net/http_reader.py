"""Bytes of one connection -> complete requests, or the refusal of the one that breaks a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache

import httptools

from inferloop.net.http import Request, Response, refusal
from inferloop.net.known_heads import KnownHeads
from inferloop.net.limits import HttpLimits


class Phase(Enum):
    """Where the connection's input stands."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    OVER = "over"


_IDLE, _HEAD, _BODY, _OVER = Phase  # looking a member up costs more than the rest of a comparison

Admit = Callable[[str, str, Mapping[bytes, bytes]], Response | None]
"""Method, path and headers of a request whose body is still to come -> a refusal, or None to read on."""

_SMALL = 16 * 1024
"""A body of so many bytes has mostly come with its headers: refusing it before it is read saves nothing."""


_KNOWN_LENGTH = 256
"""Longer targets are not remembered: strangers must not fill the memory."""


class RequestReader:
    """An incremental parser over httptools (llhttp, strict).

    Not reentrant; used by one connection on the loop's thread. After a refusal or an upgrade nothing more is read.
    The `on_...` methods are httptools' callbacks.

    Attributes:
        phase: changes only inside `feed`.
        since: when `phase` began, by the clock given.
        subject: of the client's verified certificate; every request of the connection carries it.
        peer: the client's address; likewise.
    """

    __slots__ = (
        "_admit",
        "_body",
        "_clock",
        "_counted",
        "_expect",
        "_found",
        "_headers",
        "_known",
        "_limits",
        "_now",
        "_parser",
        "_repeatable",
        "_size",
        "_url",
        "peer",
        "phase",
        "since",
        "subject",
    )  # fmt: skip

    def __init__(
        self,
        limits: HttpLimits,
        *,
        clock: Callable[[], float],
        expect: Callable[[], None],
        admit: Admit | None = None,
        known: KnownHeads | None = None,
    ) -> None:
        """Set up.

        Args:
            limits: the sizes that requests may have.
            clock: seconds, monotonic.
            expect: called when a client waits for `100 Continue` and may have it.
            admit: asked before a body of more than 16 KiB, or of unknown size, is read; None admits all.
            known: heads that were read before under the same limits; None reads each anew.
        """
        self._known = known
        self._repeatable = known is not None
        self._admit = admit
        self.subject = ""
        self.peer = ""
        self._limits = limits
        self._clock = clock
        self._expect = expect
        self._found: list[Request | Response] = []
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._url = b""
        self._size = 0
        self._counted = 0
        self._now = clock()
        self.phase = Phase.IDLE
        self.since = self._now
        self._parser = httptools.HttpRequestParser(self)

    @property
    def received_bytes(self) -> int:
        """What has come of the present body."""
        return self._size

    def feed(self, data: bytes) -> list[Request | Response]:
        """Parse more bytes; returns what they completed, in order. A `Response` is a refusal and the last thing ever returned."""
        phase = self.phase
        if phase is _OVER:
            return []
        self._now = self._clock()
        if phase is _IDLE and self._repeatable and self._known is not None:
            request = self._known.request(data, self.subject, self.peer)
            if request is not None:
                self.since = self._now
                return [request]
        return self._parse(data, phase)

    def _parse(self, data: bytes, phase: Phase) -> list[Request | Response]:
        found = self._found = []
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._close_after_last()
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError as error:
            self._refuse(400, f"the request is not HTTP/1.1: {str(error).lower()}")
        if self.phase is not _IDLE:
            if phase is _HEAD and self.phase is _HEAD and not found:
                self._counted += len(data)  # an endless header line, which the parser keeps to itself
            self._check_count()
        elif phase is _IDLE and self._known is not None and len(found) == 1 and isinstance(found[0], Request):
            self._known.learn(data, found[0])
        return found

    def on_message_begin(self) -> None:
        """A request begins."""
        self._headers = {}
        self._url = b""
        self._size = self._counted = 0
        self._enter(_HEAD)

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer after a chunked body, which never overrides a header."""
        self._counted += len(name) + len(value) + 4
        if self.phase is _HEAD:
            headers = self._headers
            name = name.lower()
            if name in headers:
                value = headers[name] + b", " + value
            headers[name] = value

    def on_headers_complete(self) -> None:
        """The body is next: refuse what is known to be too large before it is sent."""
        headers = self._headers
        self._check_count()
        if b"host" not in headers and self._parser.get_http_version() == "1.1":
            self._refuse(400, "the request has no Host header")
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.body_bytes:
            self._too_large(f"{int(length)} bytes")
        if self._admit is not None and (b"transfer-encoding" in headers if length is None else int(length) > _SMALL):
            self._ask_admission(self._admit)
        self._enter(_BODY)
        if b"expect" in headers and self.phase is _BODY:
            self._answer_expect(headers[b"expect"])

    def on_body(self, part: bytes) -> None:
        """A piece of the body."""
        if self.phase is _OVER:
            return
        self._size += len(part)
        if self._size > self._limits.body_bytes:
            self._too_large(f"more than {self._limits.body_bytes} bytes")
            return
        self._body.append(part)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._check_count()
        if self.phase is _OVER:
            return
        parser = self._parser
        headers = self._headers
        body = self._body
        url = self._url
        path, query = _known_target(url) if len(url) <= _KNOWN_LENGTH else _target(url)
        request = Request(
            _method(parser.get_method()),
            path,
            query,
            headers,
            body[0] if len(body) == 1 else b"".join(body),
            parser.should_keep_alive(),
            b"connection" in headers and parser.get_http_version() == "1.0",
            self.subject,
            self.peer,
        )
        self._found.append(request)
        self._repeatable = self._repeatable and request.keep_alive  # what follows the last request is the parser's to refuse
        self._body = []
        self.phase = _IDLE
        self.since = self._now

    def refuse_late(self) -> Response | None:
        """Give up on a request that takes too long: the refusal, or None if none had begun."""
        if self.phase not in (_HEAD, _BODY):
            return None
        self._now = self._clock()
        self._found = []
        self._refuse(408, f"the {self.phase.value} of the request took too long")
        return self._found[0] if isinstance(self._found[0], Response) else None

    def _ask_admission(self, admit: Admit) -> None:
        if self.phase is not _OVER:
            refused = admit(self._parser.get_method().decode("ascii"), _target(self._url)[0], self._headers)
            if refused is not None:
                self._end(refused)

    def _answer_expect(self, value: bytes) -> None:
        if value.lower() != b"100-continue":
            self._refuse(417, f"expectation {value.decode('latin-1')!r} is not known")
        else:
            self._expect()

    def _check_count(self) -> None:
        if self._counted + len(self._url) > self._limits.header_bytes:
            self._refuse(431, f"the headers are more than {self._limits.header_bytes} bytes")

    def _too_large(self, size: str) -> None:
        hint = "send it in smaller requests, or raise the limit of the server"
        self._refuse(413, f"the body is {size}, the limit is {self._limits.body_bytes}", hint=hint)

    def _refuse(self, status: int, message: str, *, hint: str = "") -> None:
        if self.phase is not _OVER:
            self._end(refusal(status, message, hint=hint))

    def _end(self, response: Response) -> None:
        """The last answer of this connection: nothing more is read."""
        self._body = []
        self._headers = {}
        self._enter(_OVER)
        self._found.append(response)

    def _close_after_last(self) -> None:
        """No other protocol is offered: the request is answered as HTTP/1.1 and the connection closed."""
        self._enter(_OVER)
        if self._found and isinstance(self._found[-1], Request):
            self._found[-1] = self._found[-1]._replace(keep_alive=False)

    def _enter(self, phase: Phase) -> None:
        if self.phase is not _OVER:
            self.phase = phase
            self.since = self._now


@lru_cache(64)
def _method(name: bytes) -> str:
    return name.decode("ascii")


@lru_cache(1024)
def _known_target(url: bytes) -> tuple[str, str]:
    """See `_target`: clients ask for the same again and again."""
    return _target(url)


def _target(url: bytes) -> tuple[str, str]:
    """Path and query; of an absolute URL too, as proxies send it."""
    text = url.decode("latin-1")
    if "#" in text:
        text = text.partition("#")[0]
    if not text.startswith("/") and "://" in text:
        text = "/" + text.partition("://")[2].partition("/")[2]
    path, _, query = text.partition("?")
    return path, query
