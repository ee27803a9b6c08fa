"""A mail per delivery.

    250            the server has it
    4xx            try again later, as with a connection that breaks; a mail that one recipient is put off for goes to nobody yet
    5xx            refused for good; where only some recipients are, the others get it, and the refusal says who did not
    530, 534-538   who we are is in doubt, not the mail: try again later

A connection that breaks between the end of a mail and the answer leaves open whether the server has it: it is sent again, with
the same `Message-ID`.
"""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from inferloop.core.errors import InvalidInput, Unavailable
from inferloop.core.protocols import Delivery, Sink
from inferloop.data.config import Duration
from inferloop.streams.addresses import checked_url
from inferloop.streams.contexts import SinkContext
from inferloop.streams.delivery.reaching import reached
from inferloop.streams.mailing import Mail, MailConfig, composed

T = TypeVar("T")

_KEEP_S = 30.0
"""A connection that rested longer is made anew: servers hang up after some minutes, and a mail should not find out."""
_OUR_DOUBT = frozenset({530, 534, 535, 538})
_PORTS = {"smtp": 25, "smtps": 465}


class SmtpSink(Sink):
    """One connection, used by one thread of its own."""

    class Config(MailConfig):
        """Where to, who we are, and the mail.

        Attributes:
            url: `smtp://HOST[:25]`, or `smtps://HOST[:465]` for TLS from the first byte on.
            starttls: whether an `smtp://` connection must become a TLS one before anything else is said; without it, user,
                password and mails are readable on their way.
            user: who logs in, with `password`.
            ca: a file with the certificates to trust; by default those of the system.
            timeout: of every answer of the server.
        """

        url: str
        starttls: bool = True
        user: str | None = Field(None, min_length=1)
        password: str | None = Field(None, min_length=1, repr=False)
        ca: Path | None = None
        timeout: Annotated[Duration, Field(gt=0)] = 30.0

        @field_validator("url")
        @classmethod
        def _server(cls, value: str) -> str:
            if "@" in value:
                raise ValueError("must have no user in it, `user` and `password` are keys of their own")
            return checked_url(value, "smtp", "smtps")

        @model_validator(mode="after")
        def _whole_login(self) -> Self:
            if (self.user is None) != (self.password is None):
                raise ValueError("needs both `user` and `password`, or neither")
            return self

    payload_key = "values"
    idempotent = False
    batched = False
    caveat = "a mail may come twice after a crash or a broken connection; every repetition has the same `Message-ID`"

    def __init__(self, config: Config, context: SinkContext) -> None:
        self._config = config
        self._part = f"sink {context.name!r}"
        self._name = context.name
        self._thread: ThreadPoolExecutor | None = None
        self._server: smtplib.SMTP | None = None
        self._used = 0.0

    async def open(self) -> None:
        """See `Sink.open`."""
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix=f"smtp-{self._name}")
        await reached(partial(self._in_thread, self._connect), part=f"sink {self._name}", url=self._config.url)

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        for delivery in deliveries:
            try:
                mail = composed(self._config, delivery)
            except InvalidInput as error:
                raise InvalidInput(f"{self._part}: {error.message}") from error
            await self._in_thread(partial(self._deliver, mail))

    async def close(self) -> None:
        """See `Sink.close`. Whatever the thread waits for ends with the connection."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        server = self._server
        if server is not None and server.sock is not None:
            with contextlib.suppress(OSError):
                server.sock.shutdown(socket.SHUT_RDWR)
        thread.submit(self._hang_up)
        thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise Unavailable(f"{self._part} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _connect(self) -> None:
        """Connect, encrypt and log in; on the thread."""
        self._hang_up()
        address, timeout = urlsplit(self._config.url), self._config.timeout
        host, port = address.hostname or "", address.port or _PORTS[address.scheme]
        trust = self._trust() if address.scheme == "smtps" or self._config.starttls else None
        try:
            if address.scheme == "smtps":
                self._server = smtplib.SMTP_SSL(host, port, timeout=timeout, context=trust)
            else:
                self._server = smtplib.SMTP(host, port, timeout=timeout)
                if trust is not None:
                    self._server.starttls(context=trust)
            if self._config.user is not None and self._config.password is not None:
                self._server.login(self._config.user, self._config.password)
            self._server.ehlo_or_helo_if_needed()
        except smtplib.SMTPNotSupportedError as error:
            self._fail(f"{error}; see `starttls` and `user`")
        except smtplib.SMTPResponseException as error:
            self._fail(_said(error.smtp_code, error.smtp_error))
        except (smtplib.SMTPException, OSError) as error:
            self._fail(str(error) or type(error).__name__)
        self._used = time.monotonic()

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._config.ca)
        except OSError as error:  # ssl.SSLError too
            raise InvalidInput(f"{self._part}: ca: {self._config.ca}: {error.strerror or error}") from error

    def _deliver(self, mail: Mail) -> None:
        """One mail, from MAIL to the answer that the server has it; on the thread."""
        if self._server is None or time.monotonic() - self._used > _KEEP_S:
            self._connect()
        server = self._server
        assert server is not None
        try:
            self._check(*server.mail(mail.sender), f"from {mail.sender}")
            refused = self._offered(server, mail.recipients)
            code, answer = server.data(mail.content)
            self._check(code, answer, "the mail")
        except smtplib.SMTPResponseException as error:  # DATA itself was not welcome
            self._check(error.smtp_code, error.smtp_error, "the mail")
            self._fail(_said(error.smtp_code, error.smtp_error))
        except (smtplib.SMTPException, OSError) as error:
            self._fail(str(error) or type(error).__name__)
        self._used = time.monotonic()
        if refused:
            raise InvalidInput(f"{self._part}: not delivered to {'; '.join(refused)}; the other recipients have it")

    def _offered(self, server: smtplib.SMTP, recipients: Sequence[str]) -> list[str]:
        """Name the recipients; returns those whom the server refuses for good, if it takes any of the others."""
        refused = []
        for recipient in recipients:
            code, answer = server.rcpt(recipient)
            if code not in (250, 251, 252):
                if code < 500 or len(recipients) == 1:
                    self._check(code, answer, recipient)
                refused.append(f"{recipient}: {_said(code, answer)}")
        if len(refused) == len(recipients):
            self._reset()
            raise InvalidInput(f"{self._part}: not delivered to {'; '.join(refused)}")
        return refused

    def _check(self, code: int, answer: bytes | str, what: str) -> None:
        if code == 250:
            return
        message = f"{self._part}: {what}: {_said(code, answer)}"
        self._reset()
        if code < 500 or code in _OUR_DOUBT:
            raise Unavailable(message)
        raise InvalidInput(message)

    def _reset(self) -> None:
        """Forget the mail that was begun; a connection that does not take that is given up."""
        try:
            if self._server is not None:
                self._server.rset()
        except (smtplib.SMTPException, OSError):
            self._hang_up()

    def _fail(self, reason: str) -> NoReturn:
        self._hang_up()
        raise Unavailable(f"{self._part}: {reason}")

    def _hang_up(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(smtplib.SMTPException, OSError):
                server.quit()
            server.close()


def _said(code: int, answer: bytes | str) -> str:
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    return f"{code} {' '.join(text.split())[:200]}"
