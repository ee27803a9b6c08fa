"""CEL: one expression, parsed and checked once, evaluated per message.

An expression reads the declared fields and the names of `BUILTINS`. A plain name is looked up without the CEL engine.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cel

from inferloop.core.errors import InvalidInput

BUILTINS: Mapping[str, str] = {
    "label": "string",
    "score": "number",
    "scores": "scores",
    "id": "string",
    "key": "string",
    "time": "number",
    "age_s": "number",
    "source": "string",
    "topic": "string",
}
"""What every expression sees beside the fields, with its kind."""

FUNCTIONS = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "int", "uint", "double", "string", "bytes", "bool", "dyn", "type"}
    | {"timestamp", "duration", "has", "max", "min", "lowerAscii", "upperAscii", "trim", "split", "join", "replace", "substring"}
    | {"getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours", "getMinutes"}
    | {"getSeconds", "getMilliseconds"}
)
MAX_LENGTH = 2000
"""Characters of one expression."""

_SAMPLES: Mapping[str, object] = {
    "string": "text",
    "number": 1.0,
    "bool": True,
    "bytes": b"bytes",
    "array": [1.0],
    "scores": {"label": 1.0},
    "any": "text",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MACRO = re.compile(r"\.\s*(?:map|filter|all|exists|exists_one)\s*\(\s*([A-Za-z_]\w*)\s*,")
_LITERALS = frozenset({"true", "false", "null"})


class Missing(Exception):  # a signal between two functions, no error of the user
    """The expression touched a value that this message does not have."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. Evaluated from any thread.

    Attributes:
        variables: the names that it reads.
    """

    source: str
    variables: tuple[str, ...]
    _program: Any = field(repr=False, compare=False)

    def value(self, scope: Mapping[str, Any]) -> Any:
        """Its value for one message; `scope` holds no entry for a missing field.

        Raises:
            Missing: it touched a missing value, values of types that do not go together, or it divided by zero.
        """
        if self._program is None:
            if self.source not in scope:
                raise Missing(self.source)
            return scope[self.source]
        try:
            return self._program.execute({name: _readable(scope[name]) for name in self.variables if name in scope})
        except (RuntimeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise Missing(f"{self.source}: {error}") from error

    def holds(self, scope: Mapping[str, Any]) -> bool:
        """Whether it is true for one message; raises `Missing` as `value` does."""
        return self.value(scope) is True


def compile_expression(source: str, kinds: Mapping[str, str], *, boolean: bool = False) -> Expression:
    """Parse an expression, compare its names with `kinds` and run it once on typed samples.

    Args:
        source: the CEL text.
        kinds: every name it may read, with its kind: `string`, `number`, `bool`, `bytes`, `array`, `scores` or `any`.
        boolean: whether its value must be true or false.

    Raises:
        InvalidInput: not CEL, an unknown name or function, types that do not go together, or too large.
    """
    text = source.strip()
    if _NAME.fullmatch(text) and text not in _LITERALS:
        if text not in kinds:
            raise _unknown("variable", text, kinds)
        expression = Expression(text, (text,), None)
    else:
        expression = _parse(text, kinds)
    _try(expression, kinds, boolean)
    return expression


def plain(value: Any) -> Any:
    """A CEL value as plain JSON values: times become ISO text, bytes text or base64, NaN null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    return plain(_readable(value)) if hasattr(value, "tolist") else str(value)


def _readable(value: Any) -> Any:
    """A value as CEL takes it: it knows no arrays."""
    return value.tolist() if hasattr(value, "tolist") else value


def _text(value: bytes) -> str:
    import base64

    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _parse(text: str, kinds: Mapping[str, str]) -> Expression:
    if len(text) > MAX_LENGTH:
        raise InvalidInput(f"the expression has {len(text)} characters, at most {MAX_LENGTH} are allowed")
    bound = _MACRO.findall(text)
    if len(bound) > 1:
        raise InvalidInput(f"the expression has {len(bound)} loops (map, filter, all, exists), at most 1 is allowed")
    try:
        program = cel.compile(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is not CEL: {_first_line(error)}") from error
    names = tuple(name for name in program.variables() if name not in bound)
    for name in names:
        if name not in kinds:
            raise _unknown("variable", name, kinds)
    for name in program.functions():
        if _NAME.fullmatch(name) and name not in FUNCTIONS:
            raise _unknown("function", name, FUNCTIONS)
    return Expression(text, names, program)


def _try(expression: Expression, kinds: Mapping[str, str], boolean: bool) -> None:
    loose = any(kinds[name] in ("any", "scores", "array") for name in expression.variables)
    try:
        value = expression.value({name: _SAMPLES[kinds[name]] for name in expression.variables})
    except Missing as error:
        cause = error.__cause__
        unknown = isinstance(cause, RuntimeError) and not str(cause).startswith("Function '")  # those dislike the sample's value
        certain = unknown or not expression.variables  # no message can make it right
        if cause is not None and (certain or (isinstance(cause, TypeError) and not loose)):
            raise InvalidInput(f"{expression.source!r}: {_first_line(cause)}") from error
        return
    if boolean and not isinstance(value, bool) and not loose:
        raise InvalidInput(f"{expression.source!r} must be true or false, it is {type(value).__name__}")


def _unknown(kind: str, name: str, known: Mapping[str, str] | frozenset[str]) -> InvalidInput:
    return InvalidInput(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}")


def _first_line(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    text = text.partition("ERROR: <input>:")[2] or text
    return text.partition(". ")[0].partition(" expecting {")[0][:300]
