"""The JSON Schema of pipeline files, for editors: the grammar's own keys and the config of every plugin that is installed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from inferloop.core import plugins
from inferloop.core.errors import InferloopError
from inferloop.streams.config import PipelineCommon, SinkCommon, SourceCommon
from inferloop.streams.loading import DEAD_LETTER

_REF = "#/$defs/{model}"


def pipeline_schema() -> dict[str, Any]:
    """One JSON Schema (draft 2020-12)."""
    defs: dict[str, Any] = {}
    schema = _own(PipelineCommon, defs)
    properties = schema["properties"]
    properties["sources"] = {"type": "object", "minProperties": 1, "additionalProperties": _choice("sources", SourceCommon, defs)}
    properties["message"] = _choice("codecs", None, defs)
    properties["sinks"] = {"type": "object", "additionalProperties": _choice("sinks", SinkCommon, defs)}
    properties[DEAD_LETTER] = _choice("sinks", SinkCommon, defs)
    schema["required"] = ["pipeline", "sources", "message", "model", "rules"]
    return {**schema, "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "inferloop pipeline", "$defs": defs}


def _choice(kind: str, common: type[BaseModel] | None, defs: dict[str, Any]) -> dict[str, Any]:
    """An object with exactly one plugin key of a kind, and the common keys."""
    shared = _own(common, defs)["properties"] if common is not None else {}
    choices: list[dict[str, Any]] = []
    for name, plugin in plugins.plugins(kind).items():
        try:
            config = plugins.load(kind, name).Config
        except InferloopError:
            continue
        options = {**_own(config, defs, prefix=f"{kind}-{name}-"), "description": plugin.summary}
        choices.append(
            {"type": "object", "properties": {name: options, **shared}, "required": [name], "additionalProperties": False}
        )
    return {"oneOf": choices}


def _own(model: type[BaseModel], defs: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A model's schema, with what it refers to under names of its own in `defs`."""
    schema = model.model_json_schema(by_alias=True, ref_template=_REF.replace("{model}", prefix + "{model}"))
    defs.update({prefix + name: content for name, content in schema.pop("$defs", {}).items()})
    return schema
