"""Addresses in the config of sources and sinks, checked where they are written down."""

from __future__ import annotations

from urllib.parse import urlsplit


def checked_url(value: str, *schemes: str) -> str:
    """The address as it is; one with an open `${...}` reference passes.

    Raises:
        ValueError: it has another scheme, or no host.
    """
    if "${" in value:
        return value
    try:
        parts = urlsplit(value)
        sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("must be " + " or ".join(f"{scheme}://HOST[:PORT]" for scheme in schemes))
    return value
