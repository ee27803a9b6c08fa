"""From messages to work: decoded, with an identity, or with the reason why not. Runs on a thread of its own."""

from __future__ import annotations

from collections.abc import Sequence

from inferloop.core.errors import InferloopError, InvalidInput
from inferloop.core.protocols import Codec
from inferloop.streams.identity import content_id, message_id
from inferloop.streams.work import Arrival, Work


def prepare(codec: Codec, arrivals: Sequence[Arrival]) -> list[Work]:
    """Decode each message; a poisoned one spoils no other."""
    return [_prepared(codec, arrival) for arrival in arrivals]


def _prepared(codec: Codec, arrival: Arrival) -> Work:
    message = arrival.message
    try:
        sample = codec.decode(message)
    except InferloopError as error:
        return Work(content_id(message), [arrival], error=error, error_kind="decode")
    except Exception as error:  # a payload that breaks a codec is poison, not the end of the pipeline
        wrapped = InvalidInput(f"the codec broke: {type(error).__name__}: {error}")
        return Work(content_id(message), [arrival], error=wrapped, error_kind="decode")
    return Work(message_id(sample.id, message), [arrival], sample=sample)
