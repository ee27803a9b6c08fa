"""Which version answers: a share of the keys, the same keys every time."""

from __future__ import annotations

from hashlib import blake2b

_WHOLE = 2**64


def fraction(model: str, key: str) -> float:
    """A number in [0, 1) that only the model's name and the key decide, evenly spread over keys."""
    digest = blake2b(f"{model}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _WHOLE


def takes_canary(model: str, key: str, share: float) -> bool:
    """Whether `key` belongs to the canary's share; growing the share keeps every key that it had."""
    return fraction(model, key) < share
