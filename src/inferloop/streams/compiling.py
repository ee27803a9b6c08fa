"""From a checked file to what decides: rules and payloads compiled once."""

from __future__ import annotations

from inferloop.core import plugins
from inferloop.core.errors import InvalidConfig
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


def _template(part: Part, names: dict[str, str], problems: list[str]) -> Template:
    key = plugins.load("sinks", part.plugin).payload_key
    content = part.config.model_dump(by_alias=True).get(key)
    if content is None:
        return standard_payload
    return compile_template(content, names, f"sinks.{part.name}.{part.plugin}.{key}", problems)
