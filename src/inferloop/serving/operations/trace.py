"""Trace settings, by the words of Triton: values are text, a model has the global ones until it gets its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from inferloop.core.errors import Forbidden, InvalidInput
from inferloop.serving.services import Services
from inferloop.serving.tracing import OFF, OPENTELEMETRY, TIMESTAMPS, TRITON, Own, TraceSetting

Given = str | int | list[str] | None
Settings = dict[str, str | list[str]]

PART = "trace"
"""What the state is called that several workers share."""

_FIELDS = {
    "trace_level": "level",
    "trace_rate": "rate",
    "trace_count": "count",
    "log_frequency": "log_frequency",
    "trace_file": "file",
    "trace_mode": "mode",
}
_LEAST = {"rate": 1, "count": -1, "log_frequency": 0}
_MOST = 2**31 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class TraceOperations:
    """Reads and changes the settings. Event loop only."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def get(self, model: str = "") -> Settings:
        """What holds for a model; without a name the global settings.

        Raises:
            NotFound, Unavailable: the model is not open.
        """
        model = self._name(model)
        if self._services.settings is not None:
            self._services.settings.look()
        setting = self._services.tracing.setting(model)
        return {
            "trace_level": [setting.level],
            "trace_rate": str(setting.rate),
            "trace_count": str(setting.count),
            "log_frequency": str(setting.log_frequency),
            "trace_file": setting.file,
            "trace_mode": setting.mode,
        }

    def update(self, model: str, patch: Mapping[str, Given]) -> Settings:
        """Change settings, all or none, and answer what holds then.

        Args:
            model: empty for the global settings.
            patch: a value as text, in a list or alone; None or an empty list takes the setting back to what was there before.

        Raises:
            NotFound, Unavailable: the model is not open.
            InvalidInput: no such setting, or not such a value.
            Forbidden: a file of traces, where the server was given no folder for them.
        """
        model = self._name(model)
        shared, tracing = self._services.settings, self._services.tracing
        if shared is not None:
            shared.change(PART, lambda before: self._changed(before or {"own": {}, "since": {}}, model, patch))
        else:
            adopt(self._services, self._changed({"own": tracing.own, "since": tracing.since}, model, patch))
        return self.get(model)

    def _changed(self, before: Mapping[str, Any], model: str, patch: Mapping[str, Given]) -> dict[str, Any]:
        """The state with a patch in it; raises as `update`."""
        fields = _patched(before["own"].get(model, {}), patch)
        own: Own = {**before["own"], model: fields}
        touched = [name for name in own if name == model or not model]
        for name in touched:
            self._check(self._services.tracing.merged(own, name))
        number = max(before["since"].values(), default=0) + 1
        return {"own": own, "since": {**before["since"], **dict.fromkeys(touched, number)}}

    def _check(self, setting: TraceSetting) -> None:
        tracing = self._services.tracing
        if setting.mode == OPENTELEMETRY and tracing.spans is None:
            raise InvalidInput("the server sends no spans", hint="start it with --otel-endpoint")
        if setting.file and tracing.folder is None:
            raise Forbidden("the server has no folder for files of traces", hint="start it with --trace-dir")
        if setting.level != OFF and setting.mode == TRITON and tracing.folder is None:
            raise InvalidInput("traces have nowhere to go", hint="start the server with --trace-dir or --otel-endpoint")

    def _name(self, model: str) -> str:
        """The bare name of an open model; empty for none."""
        return self._services.router.bundle(model).name if model else ""


def adopt(services: Services, state: Mapping[str, Any]) -> None:
    """Put a state of the settings into force in this process: `own` and `since` of `Tracing`."""
    services.tracing.adopt(state["own"], state["since"])
    services.tracer = services.tracing if services.tracing.active else None


def _patched(fields: Mapping[str, str | int], patch: Mapping[str, Given]) -> dict[str, str | int]:
    changed = dict(fields)
    for key, given in patch.items():
        field = _FIELDS.get(key)
        if field is None:
            raise InvalidInput(f"no trace setting is named {key!r}", hint=f"known: {', '.join(_FIELDS)}")
        value = _alone(key, given)
        if value is None:
            changed.pop(field, None)
        else:
            changed[field] = _read(field, key, value)
    return changed


def _alone(key: str, given: Given) -> str | None:
    if isinstance(given, list):
        if len(given) > 1:
            raise InvalidInput(f"{key} takes one value, got {len(given)}")
        given = given[0] if given else None
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise InvalidInput(f"{key} is text, got {type(given).__name__}")
    return str(given)


def _read(field: str, key: str, value: str) -> str | int:
    if field in _LEAST:
        if not re.fullmatch(r"-?[0-9]{1,10}", value) or not _LEAST[field] <= int(value) <= _MOST:
            raise InvalidInput(f"{key} is a whole number from {_LEAST[field]} on, got {value!r}")
        return int(value)
    if field == "level" and value not in {OFF, TIMESTAMPS}:
        raise InvalidInput(f"trace_level is {OFF} or {TIMESTAMPS}, got {value!r}", hint="what is in a request is never written")
    if field == "mode" and value not in {TRITON, OPENTELEMETRY}:
        raise InvalidInput(f"trace_mode is {TRITON} or {OPENTELEMETRY}, got {value!r}")
    if field == "file" and value and not _NAME.fullmatch(value):
        raise InvalidInput(f"trace_file is a bare file name, got {value!r}", hint="it lies in the folder of --trace-dir")
    return value
