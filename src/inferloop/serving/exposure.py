"""Who may reach the server: an address beyond this machine is refused unless the user insists."""

from __future__ import annotations

import ipaddress
import socket

from inferloop.core.errors import InvalidInput


def check_exposure(host: str, *, insecure: bool, guarded: bool = False) -> None:
    """Refuse to serve the network without keys or TLS.

    Args:
        host: an address or name of this machine; empty for all its addresses.
        insecure: the user insists; nothing is checked.
        guarded: whether the server has TLS, and keys or client certificates.

    Raises:
        InvalidInput: `host` is reachable from other machines, or has no address, and neither `insecure` nor `guarded`.
    """
    if insecure or guarded or (host and all(ipaddress.ip_address(address).is_loopback for address in _addresses(host))):
        return
    hint = "give --tls-cert, --tls-key and --keys (or --tls-client-ca), or say --insecure if the network is trusted"
    named = host or "an empty host"
    raise InvalidInput(f"{named} can be reached from other machines, and this server lacks keys or TLS", hint=hint)


def _addresses(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"no address is known for host {host!r}", hint="use an address of this machine") from error
    return [str(entry[4][0]).partition("%")[0] for entry in found]
