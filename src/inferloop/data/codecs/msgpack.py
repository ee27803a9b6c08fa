"""A MessagePack document to a Sample."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from inferloop.core.errors import InvalidInput
from inferloop.data.codecs.content import describe
from inferloop.data.codecs.document import DocumentCodec, document
from inferloop.data.codecs.plain import plain


class MsgpackCodec(DocumentCodec):
    """See `Codec`. A key that is a whole number is found by its digits (`$['1']`). Times are seconds; NaN counts as missing."""

    def parse(self, payload: bytes) -> Any:
        """See `DocumentCodec.parse`."""
        try:
            value = msgspec.msgpack.decode(payload)
        except (msgspec.DecodeError, RecursionError, ValueError, TypeError, OverflowError) as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else str(error).partition("\n")[0].lower()
            raise InvalidInput(f"the payload is no MessagePack: {reason} ({describe(payload)})") from error
        return plain(document(value, "MessagePack"), len(payload), _foreign)

    def encode(self, content: Any) -> bytes:
        """A document in the form that it reads."""
        return msgspec.msgpack.encode(content)


def _foreign(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, msgspec.msgpack.Ext):
        raise InvalidInput(f"the payload has a value of the extension type {value.code}, which is not read")
    raise InvalidInput(f"the payload has a value of the type {type(value).__name__}, which is not read")
