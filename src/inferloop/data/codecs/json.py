"""A JSON document to a Sample."""

from __future__ import annotations

from typing import Any

import msgspec

from inferloop.core.errors import InvalidInput
from inferloop.data.codecs.content import describe
from inferloop.data.codecs.document import DocumentCodec, document

_BOM = b"\xef\xbb\xbf"


class JsonCodec(DocumentCodec):
    """See `Codec`."""

    def parse(self, payload: bytes) -> Any:
        """See `DocumentCodec.parse`."""
        return parse_json(payload)


def parse_json(payload: bytes) -> Any:
    """Decode a JSON object or list.

    Raises:
        InvalidInput: not JSON, nested too deep, or a single value; says what came, never the content.
    """
    try:
        value = msgspec.json.decode(payload.removeprefix(_BOM))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error).splitlines()[0].lower()
        raise InvalidInput(f"the payload is no JSON: {reason} ({describe(payload)})") from error
    return document(value, "JSON")
