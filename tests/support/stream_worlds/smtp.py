"""A mail server of our own: aiosmtpd, in a thread, on a free loopback port."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext
from support.broker import free_port
from support.stream_worlds import SinkWorld


class Mailbox:
    """Takes every mail, unless it is told to answer otherwise.

    Attributes:
        answers: what to say to a recipient, by address; and to a whole mail, as "".
        seen: the envelope of every mail that was taken.
    """

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.seen: list[tuple[list[str], EmailMessage]] = []
        self.logins: list[str] = []
        self.port = free_port()
        self.sessions: set[int] = set()
        self._controller: Controller | None = None

    @property
    def url(self) -> str:
        """Where it listens, without TLS."""
        return f"smtp://127.0.0.1:{self.port}"

    def start(self, *, tls: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None) -> None:
        """Listen: with TLS from the first byte, or offering STARTTLS, or neither."""
        options = {"authenticator": self._authenticate, "auth_require_tls": False, "tls_context": starttls}
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, ssl_context=tls, ready_timeout=20, **options)
        self._controller.start()

    def stop(self) -> None:
        """Close the door and every connection."""
        controller, self._controller = self._controller, None
        if controller is not None:
            controller.stop()

    def message_ids(self) -> list[str]:
        """Of all mails that were taken, in order."""
        return [message["Message-ID"] for _, message in self.seen]

    async def handle_RCPT(self, _: Any, session: Session, envelope: Envelope, address: str, __: list[str]) -> str:
        self.sessions.add(id(session))
        answer = self.answers.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _: Any, __: Session, envelope: Envelope) -> str:
        answer = self.answers.get("", "250 OK")
        if answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            message = message_from_bytes(envelope.content, policy=SMTP)
            assert isinstance(message, EmailMessage)
            self.seen.append((list(envelope.rcpt_tos), message))
        return answer

    def _authenticate(self, _: Any, __: Any, ___: Any, mechanism: str, login: LoginPassword) -> AuthResult:
        self.logins.append(f"{mechanism} {login.login.decode()}")
        return AuthResult(success=login.password == b"geheim", handled=False)


@contextlib.contextmanager
def mailbox(**options: Any) -> Iterator[Mailbox]:
    """A started one."""
    box = Mailbox()
    box.start(**options)
    try:
        yield box
    finally:
        box.stop()


@contextlib.asynccontextmanager
async def smtp_sink(_: Path, __: Any) -> AsyncIterator[SinkWorld]:
    sink = plugins.load("sinks", "smtp")
    with mailbox() as box:
        config = sink.Config(**{"url": box.url, "starttls": False, "from": "ops@example.com", "to": "you@example.com"})

        def effects() -> list[str]:
            for _, message in box.seen:
                number = json.loads(message.get_content())["number"]
                assert message["Message-ID"] == f"<k{number}@example.com>"
            return [message_id[1:].partition("@")[0] for message_id in box.message_ids()]

        yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), effects)
