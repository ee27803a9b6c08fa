"""References between the parts of a pipeline file: rules to sinks, expressions to fields, states to keys.

Works on the raw content, so that it finds its problems even when another section is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from inferloop.core import plugins
from inferloop.core.errors import InferloopError, InvalidInput
from inferloop.streams.config import SINK_KEYS
from inferloop.streams.expressions import BUILTINS, compile_expression
from inferloop.streams.rendering import compile_template

_STATEFUL = ("change", "after", "vote", "for", "cooldown", "budget")


def check_references(content: Mapping[str, Any], kinds: Mapping[str, str] | None, problems: list[str]) -> None:
    """Add every broken reference to `problems`, with its path.

    Args:
        content: the file as it was read.
        kinds: the declared fields; None when the message section is wrong, then they are guessed from its keys.
        problems: where they go.
    """
    fields = kinds if kinds is not None else _guessed_fields(content)
    if fields is not None:
        problems.extend(
            f"message: field {name!r} has the name of something built in" for name in sorted(set(fields) & set(BUILTINS))
        )
    names = None if fields is None else {**fields, **BUILTINS}
    sinks = content.get("sinks") or {}
    _rules(content.get("rules"), set(sinks) if isinstance(sinks, Mapping) else set(), names, problems)
    if names is None:
        return
    _inputs(content.get("model"), names, problems)
    if isinstance(sinks, Mapping):
        for name, template, path in payloads(sinks):
            compile_template(template, names, f"sinks.{name}.{path}", problems)


def payloads(sinks: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """The payload templates of `sinks`: sink, template, path below the sink."""
    for name, entry in sinks.items():
        if not isinstance(entry, Mapping):
            continue
        for plugin, options in entry.items():
            if plugin in SINK_KEYS or not isinstance(options, Mapping):
                continue
            try:
                key = plugins.load("sinks", str(plugin)).payload_key
            except (InferloopError, AttributeError):
                continue
            if key in options:
                yield str(name), options[key], f"{plugin}.{key}"


def _guessed_fields(content: Mapping[str, Any]) -> dict[str, str] | None:
    """The names under `message.CODEC.fields`, as `any`, when the codec itself cannot be built."""
    message = content.get("message")
    options = next(iter(message.values()), None) if isinstance(message, Mapping) else None
    fields = options.get("fields") if isinstance(options, Mapping) else None
    return dict.fromkeys(map(str, fields), "any") if isinstance(fields, Mapping) else None


def _rules(rules: Any, sinks: set[Any], names: Mapping[str, str] | None, problems: list[str]) -> None:
    seen: set[str] = set()
    all_names = [str(rule.get("name")) for rule in (rules if isinstance(rules, list) else []) if isinstance(rule, Mapping)]
    for index, rule in enumerate(rules if isinstance(rules, list) else []):
        if not isinstance(rule, Mapping):
            continue
        path = f"rules.{index}"
        name = str(rule.get("name"))
        if name in seen:
            problems.append(f"{path}.name: {name!r} is the name of another rule")
        seen.add(name)
        send = rule.get("send")
        for place, sink in enumerate(send if isinstance(send, list) else []):
            if sink not in sinks:
                known = ", ".join(sorted(map(str, sinks))) or "none"
                problems.append(f"{path}.send.{place}: no sink named {sink!r}; known: {known}")
        after = rule.get("after")
        first = after.get("rule") if isinstance(after, Mapping) else None
        if first is not None and (first not in all_names or first == name):
            problems.append(f"{path}.after.rule: no other rule named {first!r}; known: {', '.join(all_names)}")
        if names is not None:
            _conditions(rule, path, names, problems)


def _conditions(rule: Mapping[str, Any], path: str, names: Mapping[str, str], problems: list[str]) -> None:
    if isinstance(rule.get("when"), str):
        try:
            compile_expression(rule["when"], names, boolean=True)
        except InvalidInput as error:
            problems.append(f"{path}.when: {error.message}")
    change = rule.get("change")
    if isinstance(change, Mapping) and names.get(str(change.get("of", "score")), "nothing") not in ("number", "any"):
        numbers = ", ".join(sorted(name for name, kind in names.items() if kind == "number"))
        problems.append(f"{path}.change.of: {change.get('of')!r} is no number; known: {numbers}")
    places = [(key, rule[key].get("by")) for key in _STATEFUL if isinstance(rule.get(key), Mapping)]
    for key, name in [*((f"{key}.by", name) for key, name in places), ("once_per", rule.get("once_per"))]:
        if isinstance(name, str) and name not in names:
            problems.append(f"{path}.{key}: no field named {name!r}; known: {', '.join(sorted(names))}")


def _inputs(model: Any, names: Mapping[str, str], problems: list[str]) -> None:
    inputs = model.get("inputs") if isinstance(model, Mapping) else None
    for name, field in (inputs if isinstance(inputs, Mapping) else {}).items():
        if isinstance(field, str) and field not in names:
            problems.append(f"model.inputs.{name}: no message field named {field!r}; known: {', '.join(sorted(names))}")
