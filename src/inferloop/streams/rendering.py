"""Payloads: what a sink's config declares, filled in from one message. A text that starts with `=` is an expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inferloop.core.errors import InvalidInput
from inferloop.streams.expressions import Missing, compile_expression, plain

Scope = Mapping[str, Any]
Template = Callable[[Scope], Any]
_NOT_FIELDS = ("label", "score", "scores", "id", "key", "time", "age_s", "source", "topic")


def compile_template(content: Any, kinds: Mapping[str, str], path: str, problems: list[str]) -> Template:
    """A function from the names of one message to the payload; every problem goes to `problems` with its path.

    A value that touches something missing is null. `==text` stands for the text `=text`.
    """
    if isinstance(content, Mapping):
        parts = {str(name): compile_template(item, kinds, f"{path}.{name}", problems) for name, item in content.items()}
        return lambda scope: {name: part(scope) for name, part in parts.items()}
    if isinstance(content, list | tuple):
        items = [compile_template(item, kinds, f"{path}.{index}", problems) for index, item in enumerate(content)]
        return lambda scope: [item(scope) for item in items]
    if isinstance(content, str) and content.startswith("=="):
        return lambda _: content[1:]
    if isinstance(content, str) and content.startswith("="):
        return _expression(content[1:], kinds, path, problems)
    return lambda _: content


def standard_payload(scope: Scope) -> dict[str, Any]:
    """What a sink gets that declares nothing: identity, decision and the fields."""
    fields = {name: plain(value) for name, value in scope.items() if name not in _NOT_FIELDS and not name.startswith("_")}
    known = {name: plain(scope.get(name)) for name in ("id", "key", "time", "source", "label", "score")}
    return {**known, "rule": scope.get("_rule", ""), "prediction_id": scope.get("_prediction_id", ""), "fields": fields}


def _expression(source: str, kinds: Mapping[str, str], path: str, problems: list[str]) -> Template:
    try:
        expression = compile_expression(source, kinds)
    except InvalidInput as error:
        problems.append(f"{path}: {error.message}")
        return lambda _: None

    def render(scope: Scope) -> Any:
        try:
            return plain(expression.value(scope))
        except Missing:
            return None

    return render
