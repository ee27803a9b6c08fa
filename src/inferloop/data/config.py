"""Configuration: YAML in, a frozen pydantic model out, every problem at once and each with its path.

text --read_yaml--> dict --expand--> dict --validate--> model
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import pydantic

from inferloop.core.errors import InvalidConfig, InvalidInput
from inferloop.data.references import expand, redacted
from inferloop.data.units import RateLimit, duration_s, rate, size_bytes
from inferloop.data.yaml_text import parse_yaml, read_yaml

__all__ = ["Duration", "Rate", "Size", "duration_s", "expand", "parse_yaml", "rate", "read_yaml", "size_bytes", "validate"]

Model = TypeVar("Model", bound=pydantic.BaseModel)
Value = TypeVar("Value")

_WORDS: Mapping[str, str] = {
    "missing": "is missing",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "too_short": "must have at least {min_length} entries, it has {actual_length}",
    "too_long": "must have at most {max_length} entries, it has {actual_length}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}


def _checked(parse: Callable[[object], Value]) -> Callable[[Any], Value]:
    def check(value: Any) -> Value:
        try:
            return parse(value)
        except InvalidInput as error:
            raise ValueError(error.message) from error

    return check


Duration = Annotated[
    float,
    pydantic.BeforeValidator(_checked(duration_s)),
    pydantic.WithJsonSchema({"type": "string", "examples": ["5ms", "2s", "1h30m"]}),
]
"""Seconds, written with a unit."""

Size = Annotated[
    int, pydantic.BeforeValidator(_checked(size_bytes)), pydantic.WithJsonSchema({"type": "string", "examples": ["512KB", "2GB"]})
]
"""Bytes, written with a unit."""

Rate = Annotated[
    RateLimit, pydantic.BeforeValidator(_checked(rate)), pydantic.WithJsonSchema({"type": "string", "examples": ["5/s", "20/1h"]})
]
"""A count within a time."""


def validate(model_class: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """Make a model of `content`.

    Args:
        model_class: a frozen model with `extra="forbid"`.
        content: what `read_yaml` gave, expanded.
        where: the file's name, in front of every problem; may be empty.

    Raises:
        InvalidConfig: all problems, each as `where: path.to.key: what is wrong`.
    """
    try:
        return model_class.model_validate(content)
    except pydantic.ValidationError as error:
        problems = list(_problems(error, content, model_class))
        prefix = f"{where}: " if where else ""
        raise InvalidConfig([prefix + problem for problem in problems]) from error


def _problems(error: pydantic.ValidationError, content: Any, model: type[pydantic.BaseModel]) -> Iterator[str]:
    found = [(_path(detail["loc"], content, detail["type"]), detail) for detail in error.errors(include_url=False)]
    told: dict[tuple[str, ...], list[str]] = {}
    for path, detail in found:
        deeper = any(len(other) > len(path) and other[: len(path)] == path for other, _ in found)
        if deeper and (detail["type"].endswith(("_type", "_instance_of")) or detail["type"] == "missing"):
            continue  # the other form of a union; the deeper problem is the user's
        words = redacted(_words(detail, path, model))
        if words not in told.setdefault(path, []):
            told[path].append(words)
    for path, alternatives in told.items():
        yield ": ".join(filter(None, (".".join(path), ", or ".join(alternatives))))


def _path(loc: Sequence[int | str], content: Any, kind: str) -> tuple[str, ...]:
    """The path in the user's file: pydantic's location without the names of union members."""
    path: list[str] = []
    here = content
    for index, step in enumerate(loc):
        last = index == len(loc) - 1
        if _has(here, step):
            here = here[step]
        elif not (last and kind == "missing"):
            continue
        path.append(str(step))
    return tuple(path)


def _has(value: Any, step: int | str) -> bool:
    if isinstance(value, Mapping):
        return step in value
    return isinstance(value, list | tuple) and isinstance(step, int) and step < len(value)


def _words(detail: Any, path: tuple[str, ...], model: type[pydantic.BaseModel]) -> str:
    if detail["type"] == "extra_forbidden":
        return "is not a known key" + _did_you_mean(path[-1] if path else "", model)
    template = _WORDS.get(detail["type"])
    if template is not None:
        text = template.format(**detail.get("ctx", {}))
    else:
        text = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
        text = text[:1].lower() + text[1:] if not text[:2].isupper() else text
    given = detail["input"]
    if detail["type"] != "missing" and isinstance(given, str | int | float) and "{" not in str(given) and len(str(given)) < 60:
        return text if repr(given) in text else f"{text}, it is {given!r}"
    return text


def _did_you_mean(key: str, model: type[pydantic.BaseModel]) -> str:
    near = difflib.get_close_matches(key, sorted(_keys(model, set())), n=1)
    return f"; did you mean {near[0]!r}?" if near and near[0] != key else ""


def _keys(annotation: Any, seen: set[Any]) -> set[str]:
    """Every key that a model and the models inside it know."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        if annotation in seen:
            return set()
        seen.add(annotation)
        keys = {field.alias or name for name, field in annotation.model_fields.items()}
        return keys.union(*(_keys(field.annotation, seen) for field in annotation.model_fields.values()))
    return set().union(*(_keys(argument, seen) for argument in getattr(annotation, "__args__", ())))
