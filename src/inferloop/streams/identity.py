"""Who a message is, and which effect is whose: ids and idempotency keys that no batch boundary changes."""

from __future__ import annotations

import hashlib
import secrets

from inferloop.core.sample import Message

_SEPARATOR = "|"


def message_id(own: str, message: Message) -> str:
    """The id of a decoded message: its own, else its place in a replayable source, else one made up now."""
    if own:
        return own
    if message.position:
        return f"{message.source}@{message.topic}@{message.position}"
    return f"anonymous-{secrets.token_hex(16)}"


def content_id(message: Message) -> str:
    """The id of a message that cannot be read: its place in a replayable source, else its content."""
    if message.position:
        return message_id("", message)
    digest = hashlib.sha256(message.topic.encode() + b"\0" + message.payload).hexdigest()
    return f"unreadable-{message.source}-{digest}"


def effect_key(pipeline: str, rule: str, sink: str, identity: str) -> str:
    """`sha256(pipeline | rule | sink | message id)`."""
    return _digest(pipeline, rule, sink, identity)


def once_key(pipeline: str, sink: str, value: object) -> str:
    """`sha256(pipeline | sink | once_per value)`."""
    text = value if isinstance(value, str) else repr(value)
    return _digest(pipeline, sink, text)


def _digest(*parts: str) -> str:
    return hashlib.sha256(_SEPARATOR.join(parts).encode()).hexdigest()
