"""A pipeline file: read, checked as a whole, every problem at once with its path.

YAML -> entries (which plugin stands where) -> one pydantic model for the file -> references between the parts
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, create_model

from inferloop.core import plugins
from inferloop.core.errors import InferloopError, InvalidConfig
from inferloop.core.protocols import Codec
from inferloop.data.config import expand, read_yaml, validate
from inferloop.streams.config import (
    NAME,
    SINK_KEYS,
    SOURCE_KEYS,
    ModelSection,
    OutboxSection,
    PipelineCommon,
    RuleSection,
    Section,
    SinkCommon,
    SourceCommon,
    TestSection,
    WindowSection,
)
from inferloop.streams.references import check_references

DEAD_LETTER = "dead_letter"
_TOP = (*PipelineCommon.model_fields, "sources", "message", "sinks", DEAD_LETTER)


@dataclass(frozen=True, slots=True)
class Part:
    """One plugin with its checked config.

    Attributes:
        plugin: its name in the table.
        config: an instance of its `Config`.
        common: the keys beside it: `SourceCommon` or `SinkCommon`.
    """

    name: str
    plugin: str
    config: Any
    common: Any = None


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """A checked pipeline file.

    Attributes:
        kinds: the declared fields with their types.
        dead_letter: None for the file under `INFERLOOP_HOME` that is used then.
    """

    path: str
    name: str
    sources: tuple[Part, ...]
    codec: Codec
    message: Part
    model: ModelSection
    match: str
    rules: tuple[RuleSection, ...]
    sinks: tuple[Part, ...]
    dead_letter: Part | None
    window: WindowSection | None
    outbox: OutboxSection | None
    tests: tuple[TestSection, ...]
    kinds: Mapping[str, str]


def load_spec(path: Path | str, *, offline: bool = False) -> PipelineSpec:
    """Read and check a pipeline file.

    Args:
        path: the YAML file.
        offline: keep `${...}` references as they stand, for tests that open nothing.

    Raises:
        NotFound: there is no such file.
        InvalidConfig: all problems, each as `file: path.to.key: what is wrong`.
    """
    return build_spec(read_yaml(path), str(path), offline=offline)


def build_spec(content: Mapping[str, Any], where: str, *, offline: bool = False) -> PipelineSpec:
    """The same for content that was read already; `where` names it in messages."""
    problems: list[str] = []
    expanded = dict(content) if offline else _expanded(content, problems)
    model = _file_model(expanded, problems)
    checked = _validated(model, expanded, problems)
    spec = _assemble(expanded, checked, where, problems) if checked is not None else None
    check_references(expanded, spec.kinds if spec else None, problems)
    if problems or spec is None:
        raise InvalidConfig(
            [f"{where}: {problem}" for problem in dict.fromkeys(problems)], hint="`inferloop pipeline schema` prints the grammar"
        )
    return spec


def _expanded(content: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Resolve references everywhere but in tests; what cannot be resolved stays as it is and is told once."""
    settings = {key: value for key, value in content.items() if key != "tests"}
    try:
        resolved = expand(settings)
    except InvalidConfig as error:
        problems.extend(error.problems)
        return dict(content)
    return {**content, **resolved}


def _file_model(content: Mapping[str, Any], problems: list[str]) -> type[BaseModel]:
    """One pydantic model for the whole file, with the config of every plugin that it names."""
    fields: dict[str, Any] = {
        "sources": (_shelf("sources", content.get("sources"), SOURCE_KEYS, SourceCommon, problems), ...),
        "message": (_entry("codecs", content["message"], "message", (), None, problems) if "message" in content else Any, ...),
        "sinks": (_shelf("sinks", content.get("sinks", {}), SINK_KEYS, SinkCommon, problems), {}),
    }
    if DEAD_LETTER in content:
        fields[DEAD_LETTER] = (_entry("sinks", content[DEAD_LETTER], DEAD_LETTER, SINK_KEYS, SinkCommon, problems), ...)
    return create_model("Pipeline", __base__=PipelineCommon, **fields)


def _shelf(kind: str, content: Any, common: tuple[str, ...], base: type[BaseModel], problems: list[str]) -> Any:
    """The model of `sources` or `sinks`: one field an entry, named by the user."""
    if not isinstance(content, Mapping):
        return dict[str, Any]
    fields: dict[str, Any] = {}
    for index, (name, entry) in enumerate(content.items()):
        path = f"{kind}.{name}"
        if not isinstance(name, str) or not _fits_name(name) or name == DEAD_LETTER:
            problems.append(f"{path}: is no name: letters, digits, `_`, `-` and `.`, at most 64, not {DEAD_LETTER!r}")
        fields[f"entry_{index}"] = (_entry(kind, entry, path, common, base, problems), Field(alias=str(name)))
    if not fields and kind == "sources":
        problems.append("sources: must have at least 1 entry")
    return create_model(kind, __config__={"extra": "forbid", "frozen": True}, **fields)


def _entry(kind: str, content: Any, path: str, common: tuple[str, ...], base: type[BaseModel] | None, problems: list[str]) -> Any:
    """The model of one entry: exactly one plugin key beside the common ones."""
    if not isinstance(content, Mapping):
        problems.append(f"{path}: must be a mapping with one plugin; known: {', '.join(plugins.names(kind))}")
        return Any
    own = [str(key) for key in content if key not in common]
    chosen = [key for key in own if key in plugins.names(kind)] or own  # what else is there is an unknown key
    if len(chosen) != 1:
        known = ", ".join(plugins.names(kind))
        got = f"names {len(chosen)} ({', '.join(chosen)})" if chosen else "names none"
        problems.append(f"{path}: must name exactly one {kind.removesuffix('s')}, it {got}; known: {known}")
        return Any
    try:
        plugin = plugins.load(kind, chosen[0])
    except InferloopError as error:
        problems.append(f"{path}.{chosen[0]}: {error.message}; {error.hint}")
        return Any
    if kind == "sources" and not getattr(plugin, "live", False):
        waits = "is for a live source that cannot wait"
        problems.extend(f"{path}.{key}: {waits}, {chosen[0]} can" for key in common if key in content)
    return create_model(f"{kind}_{chosen[0]}", __base__=base or Section, plugin=(plugin.Config, Field(alias=chosen[0])))


def _validated(model: type[BaseModel], content: Mapping[str, Any], problems: list[str]) -> Any:
    try:
        checked = validate(model, content, "")
    except InvalidConfig as error:
        problems.extend(error.problems)
        return None
    return None if problems else checked


def _assemble(content: Mapping[str, Any], checked: Any, where: str, problems: list[str]) -> PipelineSpec | None:
    message = _part("message", content["message"], checked.message, ())
    try:
        codec: Codec = plugins.load("codecs", message.plugin)(message.config)
    except InferloopError as error:
        problems.append(f"message.{message.plugin}: {error.message}")
        return None
    dead = getattr(checked, DEAD_LETTER, None)
    return PipelineSpec(
        path=where,
        name=checked.pipeline,
        sources=tuple(_parts(content["sources"], checked.sources, SOURCE_KEYS)),
        codec=codec,
        message=message,
        model=checked.model,
        match=checked.match,
        rules=checked.rules,
        sinks=tuple(_parts(content.get("sinks", {}), checked.sinks, SINK_KEYS)),
        dead_letter=_part(DEAD_LETTER, content[DEAD_LETTER], dead, SINK_KEYS) if dead is not None else None,
        window=checked.window,
        outbox=checked.outbox,
        tests=checked.tests,
        kinds=_kinds(codec, checked, problems),
    )


def _kinds(codec: Codec, checked: Any, problems: list[str]) -> dict[str, str]:
    """The fields as rules see them: what a window gathers is an array there."""
    kinds = dict(codec.fields())
    window: WindowSection | None = checked.window
    if window is None:
        return kinds
    if not checked.model.inputs:
        problems.append("window: needs model.inputs, which says which fields it gathers")
    if window.by != "key" and window.by not in kinds:
        problems.append(f"window.by: no field named {window.by!r}; known: key, {', '.join(kinds)}")
    for name in checked.model.inputs.values():
        if kinds.get(name, "any") not in ("number", "array", "any"):
            problems.append(f"window: field {name!r} is {kinds[name]}, a window gathers numbers")
        kinds[name] = "array"
    return kinds


def _parts(content: Mapping[str, Any], checked: Any, common: tuple[str, ...]) -> Iterable[Part]:
    for index, (name, entry) in enumerate(content.items()):
        yield _part(name, entry, getattr(checked, f"entry_{index}"), common)


def _part(name: str, content: Mapping[str, Any], checked: Any, common: tuple[str, ...]) -> Part:
    plugin = next(str(key) for key in content if key not in common)  # checked to be the only one
    return Part(name, plugin, checked.plugin, checked)


def _fits_name(name: str) -> bool:
    import re

    return re.fullmatch(NAME, name) is not None
