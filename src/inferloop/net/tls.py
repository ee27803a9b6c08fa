"""TLS for every listening port: certificates from files, renewed ones without a restart, client certificates where asked for.

tls = Tls(TlsSettings(Path("server.pem"), Path("server.key")), alpn=("http/1.1",))
loop.create_server(..., ssl=tls.context)
"""

from __future__ import annotations

import logging
import ssl
import time
from asyncio import BaseTransport
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inferloop.core.errors import InferloopError, InvalidInput

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_MISMATCH = "KEY_VALUES_MISMATCH"


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The files of a server's TLS, all PEM.

    Attributes:
        certificate: the server's, followed by the intermediate ones.
        key: its private key, not encrypted.
        client_ca: who signs the clients' certificates; a client without one is refused. None asks for none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that are read."""
        return (self.certificate, self.key) if self.client_ca is None else (self.certificate, self.key, self.client_ca)


class Tls:
    """TLS 1.2 or later for one port. Event loop only.

    The files are looked at once a second at most, when a client connects: later handshakes use the renewed ones, open
    connections stay. Files that do not fit together leave everything as it was, and the log says so.

    Attributes:
        context: for `create_server(ssl=...)`; the same object for as long as the server runs.
    """

    def __init__(self, settings: TlsSettings, *, alpn: Sequence[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """Read the files.

        Args:
            settings: where they are.
            alpn: the protocols that the port speaks, the preferred one first.
            clock: seconds, monotonic.

        Raises:
            InvalidInput: a file is missing or no PEM, or key and certificate do not belong together.
        """
        self._settings = settings
        self._alpn = list(alpn)
        self._clock = clock
        self._looked = clock()
        self._seen = _stamps(settings)
        self._current = make_context(settings, alpn=alpn)
        self.context = make_context(settings, alpn=alpn)
        self.context.sni_callback = self._choose  # called in every handshake, with and without a server name

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Hand the handshake to the context of the present files."""
        now = self._clock()
        if now - self._looked > _LOOK_S:
            self._looked = now
            self._refresh()
        connection.context = self._current

    def _refresh(self) -> None:
        stamps = _stamps(self._settings)
        if stamps == self._seen:
            return
        try:
            self._current = make_context(self._settings, alpn=self._alpn)
        except InferloopError as error:  # the two files are written one after the other: look again
            log.error("certificate not read again", extra={"error": error.message})
            return
        self._seen = stamps
        log.info("certificate read", extra={"file": str(self._settings.certificate)})


def make_context(settings: TlsSettings, *, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """A server's context from the files as they are now.

    Raises:
        InvalidInput: as `Tls`.
    """
    for path in settings.files:
        _check_readable(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    try:
        context.load_cert_chain(settings.certificate, settings.key, password=_no_password(settings.key))
    except ssl.SSLError as error:
        raise _certificate_error(settings, error) from error
    if settings.client_ca is not None:
        _ask_clients(context, settings.client_ca)
    return context


def subject(transport: BaseTransport) -> str:
    """The subject of the client's verified certificate, `CN=edge-7,O=Example`; empty without one."""
    certificate = transport.get_extra_info("peercert")
    if not certificate:
        return ""
    parts = [pair for group in certificate.get("subject", ()) for pair in group]
    parts.sort(key=lambda pair: pair[0] != "commonName")
    return ",".join(f"{_SHORT.get(name, name)}={value}" for name, value in parts)


_SHORT = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C"}


def _ask_clients(context: ssl.SSLContext, client_ca: Path) -> None:
    try:
        context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        raise InvalidInput(f"{client_ca} holds no certificate in PEM", hint="it is the CA that signs the clients'") from error
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET  # a resumed session would not look at the client's certificate again
    context.num_tickets = 0


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def _no_password(key: Path) -> Callable[[], str]:
    """Asked for by an encrypted key only; without it the library would ask the terminal."""

    def ask() -> str:
        raise InvalidInput(
            f"{key} is encrypted", hint="`openssl pkey -in FILE -out PLAIN` removes the password; mode 0600 protects it"
        )

    return ask


def _certificate_error(settings: TlsSettings, error: ssl.SSLError) -> InvalidInput:
    if error.reason == _MISMATCH:
        return InvalidInput(f"{settings.key} is not the key of {settings.certificate}")
    return InvalidInput(f"{settings.certificate} and {settings.key} are no certificate and key in PEM: {error.reason or error}")


def _stamps(settings: TlsSettings) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(_stamp(path) for path in settings.files)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
