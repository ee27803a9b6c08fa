"""The parameters of a request that the server understands; all others are accepted and change nothing.

sequence_id, sequence_start, sequence_end   its place in a sequence
priority                                    1 is served first, 0 is the model's default
timeout                                     microseconds that the answer may take
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType

from inferloop.core.errors import InvalidInput
from inferloop.prediction.options import NO_OPTIONS, Options, SequenceStep

Value = str | int | float | bool | None
Parameters = Mapping[str, Value]

NO_PARAMETERS: Parameters = MappingProxyType({})

EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
FINAL_RESPONSE = "triton_final_response"
_MOST = 2**64 - 1


def options_of(parameters: Parameters) -> Options:
    """Priority and sequence of a request.

    Raises:
        InvalidInput: one of them has the wrong type, or is out of range.
    """
    if not parameters:
        return NO_OPTIONS
    priority = _count(parameters, "priority")
    sequence = _sequence(parameters)
    return Options(priority, sequence) if priority or sequence is not None else NO_OPTIONS


def deadline_of(parameters: Parameters, deadline: float | None = None) -> float | None:
    """When the answer is due, in `time.monotonic()` seconds; of the transport's deadline and `timeout` the earlier one.

    Raises:
        InvalidInput: `timeout` is no count of microseconds.
    """
    timeout_us = _count(parameters, "timeout") if parameters else 0
    if not timeout_us:
        return deadline
    own = time.monotonic() + timeout_us / 1e6
    return own if deadline is None else min(own, deadline)


def flag(parameters: Parameters, name: str) -> bool:
    """A parameter that is true or false; false if it is not given.

    Raises:
        InvalidInput: it is something else.
    """
    value = parameters.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidInput(f"parameter {name!r} must be true or false, got {value!r}")


def _count(parameters: Parameters, name: str) -> int:
    value = parameters.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= _MOST:
        raise InvalidInput(f"parameter {name!r} must be a whole number of at least 0, got {value!r}")
    return value


def _sequence(parameters: Parameters) -> SequenceStep | None:
    name = parameters.get("sequence_id")
    start, end = flag(parameters, "sequence_start"), flag(parameters, "sequence_end")
    if name is None or name == 0 or name == "":
        if start or end:
            raise InvalidInput("sequence_start and sequence_end need a sequence_id other than 0")
        return None
    if isinstance(name, bool) or not isinstance(name, int | str) or (isinstance(name, int) and not 0 < name <= _MOST):
        raise InvalidInput(f"parameter 'sequence_id' must be a number of 64 bits or a text, got {name!r}")
    return SequenceStep(name, start, end)
