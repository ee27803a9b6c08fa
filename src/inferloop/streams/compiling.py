"""From a checked file to what decides: rules and payloads compiled once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from inferloop.core import plugins
from inferloop.core.errors import InvalidConfig
from inferloop.streams.config import RuleSection
from inferloop.streams.expressions import BUILTINS, compile_expression
from inferloop.streams.loading import Part, PipelineSpec
from inferloop.streams.rendering import Template, compile_template, standard_payload
from inferloop.streams.rules.rulebook import Rulebook
from inferloop.streams.scope import names_of


def rulebook_of(spec: PipelineSpec) -> Rulebook:
    """The rules of a file with the payload of each sink."""
    names = names_of(spec.kinds)
    problems: list[str] = []
    templates = {part.name: _template(part, names, problems) for part in spec.sinks}
    if problems:
        raise InvalidConfig(f"{spec.path}: {problem}" for problem in problems)
    return Rulebook(spec.rules, match=spec.match, kinds=names, templates=templates)


def fields_read(rules: Iterable[RuleSection], kinds: Mapping[str, str]) -> frozenset[str]:
    """The declared fields that these rules read, in conditions, in what they count by and in `once_per`."""
    names: set[str] = set()
    for rule in rules:
        names.update((rule.change.of,) if rule.change else ())
        names.update(rule.counts_by, (rule.once_per,) if rule.once_per else ())
        if rule.when:
            names.update(compile_expression(rule.when, names_of(kinds), boolean=True).variables)
    return frozenset(names - set(BUILTINS))


def _template(part: Part, names: dict[str, str], problems: list[str]) -> Template:
    key = plugins.load("sinks", part.plugin).payload_key
    content = part.config.model_dump(by_alias=True).get(key)
    if content is None:
        return standard_payload
    return compile_template(content, names, f"sinks.{part.name}.{part.plugin}.{key}", problems)
