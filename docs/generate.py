"""Writes the reference pages that follow from the code: verbs, errors, metrics, plugins, keys of configuration files.

`python docs/generate.py` rewrites them; `python docs/generate.py --check` says which are out of date (exit code 1).
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel, WithJsonSchema
from pydantic.fields import FieldInfo

from inferloop.cli.main import root
from inferloop.cli.verbs import SECTIONS
from inferloop.core import errors, plugins, telemetry

REFERENCE = Path(__file__).resolve().parent / "reference"
NOTICE = "<!-- written by docs/generate.py; `make docs` writes it anew -->\n\n"

_WORDS = {
    "str": "text",
    "_Address": "text",
    "TextTemplate": "text",
    "Path": "path",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Any": "anything",
    "datetime": "time",
}


def pages() -> dict[str, str]:
    """The content of every generated page, by file name."""
    content = {
        "cli.md": cli_page(),
        "errors.md": errors_page(),
        "metrics.md": metrics_page(),
        "plugins.md": plugins_page(),
        "pipeline-keys.md": pipeline_page(),
        "model-keys.md": model_page(),
        "training-keys.md": training_page(),
    }
    return {name: NOTICE + text.rstrip() + "\n" for name, text in content.items()}


def cli_page() -> str:
    """Every verb with its arguments and options, as `--help` says them."""
    parts = ["# Command line\n", "Results go to stdout, all else to stderr. Errors are two lines, `error:` and `hint:`.\n"]
    parts += ["| exit code | meaning |", "|---|---|"]
    parts += ["| 0 | done |", "| 1 | the answer is no: a gate failed, a challenger lost, a check found something |"]
    parts += ["| 2 | the command, the configuration or the input is wrong |"]
    parts += ["| 3 | the machine or a service let us down |", "| 130 | interrupted |", ""]
    for section, verbs in SECTIONS.items():
        parts.append(f"## {section}\n")
        for name in verbs:
            command = root.get_command(click.Context(root), name)
            if command is not None:
                parts += list(_command(command, f"inferloop {name}", level=3))
    return "\n".join(parts)


def _command(command: click.Command, path: str, *, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=path, help_option_names=["-h", "--help"])
    yield f"{'#' * level} {path}\n"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    yield _help(command.help or "")
    options = [option for option in command.params if isinstance(option, click.Option)]
    if options:
        yield "| option | meaning | default |"
        yield "|---|---|---|"
        for option in options:
            yield f"| `{', '.join((*option.opts, *option.secondary_opts))}` | {_cell(option.help or '')} | {_default(option)} |"
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _command(child, f"{path} {name}", level=level + 1)


def _help(text: str) -> str:
    """The help text; a paragraph that click does not wrap (an example) becomes a text block."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            paragraphs.append(f"```text\n{paragraph.removeprefix(chr(8)).strip(chr(10))}\n```")
        else:
            paragraphs.append(_cell(paragraph))
    return "\n\n".join(paragraphs) + "\n"


def _default(option: click.Option) -> str:
    value = option.default
    if option.is_flag or value is None or callable(value) or value == () or "UNSET" in str(value).upper():
        return ""
    return f"`{value}`"


def errors_page() -> str:
    """The tree of errors with what a front end answers."""
    parts = ["# Errors\n", "Every expected error carries a message, a hint, an HTTP status, a gRPC code and an exit code.\n"]
    parts += ["| error | HTTP | gRPC | exit | when |", "|---|---|---|---|---|"]
    for name, member in vars(errors).items():
        if inspect.isclass(member) and issubclass(member, errors.InferloopError):
            summary = (member.__doc__ or "").splitlines()[0]
            parts.append(f"| `{name}` | {member.status} | {member.grpc_code} | {member.exit_code} | {_cell(summary)} |")
    parts += ["", 'The HTTP body is exactly `{"error": "..."}`; the hint is the header `Inferloop-Hint`.']
    return "\n".join(parts)


def metrics_page() -> str:
    """Every metric with its labels."""
    parts = ["# Metrics\n", "Served in the Prometheus text format at `GET /metrics`. Base units: seconds, rows, messages.\n"]
    parts += ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    parts += [line for metric in vars(telemetry).values() if (line := _metric(metric)) and "`nv_" not in line]
    parts += ["", "## By the names of Triton\n", "The same numbers, for dashboards that were made for NVIDIA Triton.\n"]
    parts += ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    parts += [line for metric in vars(telemetry).values() if (line := _metric(metric)) and "`nv_" in line]
    return "\n".join(parts)


def _metric(metric: object) -> str:
    """One row of the table; empty for what is no metric."""
    if isinstance(metric, telemetry.Exported):
        name, kind, labels, text = metric.name, metric.type, metric.labels, metric.documentation
        suffix = "_total" if kind == "counter" and not metric.triton else ""
    else:
        family = getattr(metric, "describe", None)
        if family is None or inspect.isclass(metric):
            return ""
        described = family()[0]
        name, kind, text = described.name, described.type, described.documentation
        labels = metric._labelnames  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way
        suffix = "_total" if kind == "counter" else ""
    shown = ", ".join(f"`{label}`" for label in labels)
    return f"| `{name}{suffix}` | {kind} | {shown} | {_cell(text)} |"


def plugins_page() -> str:
    """Every plugin of the table with its options."""
    parts = ["# Plugins\n", "`inferloop plugins` shows which are installed, those of other distributions included.\n"]
    nested: dict[str, type[BaseModel]] = {}
    for kind, table in plugins.TABLE.items():
        if not table:
            continue
        parts.append(f"## {kind}\n")
        for name, plugin in table.items():
            extra = f" Needs `pip install 'inferloop[{plugin.extra}]'`." if plugin.extra else ""
            parts.append(f"### {name}\n\n{plugin.summary[:1].upper()}{plugin.summary[1:]}.{extra}\n")
            config = getattr(plugins.load(kind, name), "Config", None)
            if inspect.isclass(config) and issubclass(config, BaseModel) and config.model_fields:
                parts += [*_fields(config), ""]
                nested.update({model.__name__: model for model in _nested(config)})
    parts.append("## Mappings in options\n")
    for name, model in sorted(nested.items()):
        parts += [f"### {name}\n\n{_cell((model.__doc__ or '').splitlines()[0])}\n", *_fields(model), ""]
    return "\n".join(parts)


def _nested(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The models that the fields of a model take."""
    types = [field.annotation for field in model.model_fields.values()]
    while types:
        annotation = types.pop()
        types += get_args(annotation)
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            yield annotation


def pipeline_page() -> str:
    """The keys of a pipeline file, section by section, as they are checked."""
    return _sections(
        "inferloop.streams.config", "Pipeline keys", "What a pipeline file takes. [Pipelines](pipeline.md) explains it."
    )


def training_page() -> str:
    """The keys of a training file, section by section, as they are checked."""
    introduction = "What a training file takes. [A guide](../how-to/train-a-text-classifier.md) shows one at work."
    return _sections("inferloop.training.config", "Training keys", introduction)


def model_page() -> str:
    """The keys of a `model.yaml`, section by section, as they are checked."""
    introduction = (
        "What a `model.yaml` beside a model's versions takes. [A guide](../how-to/model-repository.md) shows it at work, "
        "[one for ensembles](../how-to/ensembles.md) the steps."
    )
    return _sections("inferloop.prediction.repository.model_yaml", "Model keys", introduction)


def _sections(module: str, title: str, introduction: str) -> str:
    """Every model of a module that says what it is; the whole file, which is defined last, comes first."""
    parts = [f"# {title}\n", f"{introduction}\n"]
    for name, model in reversed(vars(importlib.import_module(module)).items()):
        own = inspect.isclass(model) and issubclass(model, BaseModel) and model.__module__ == module
        if own and model.__doc__ and model.model_fields:
            parts.append(f"## {name}\n\n{_cell(model.__doc__.splitlines()[0])}\n")
            parts += [*_fields(model), ""]
    return "\n".join(parts)


def _fields(model: type[BaseModel]) -> Iterator[str]:
    """One table row a key: its YAML name, its type, its default and what it means."""
    said = _attributes(model)
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _default_value(field)
        meaning = field.description or said.get(name) or said.get(field.alias or "", "")
        kind = _cell(_type(field.annotation, field.metadata))
        yield f"| `{field.alias or name}` | {kind} | {_cell(default)} | {_cell(meaning)} |"


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the `Attributes:` sections of the class and of those that it extends say, by name."""
    said: dict[str, str] = {}
    for each in reversed(model.__mro__):
        _, _, section = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")
        if issubclass(each, BaseModel) and each is not BaseModel:
            found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
            said.update({name: " ".join(text.split()) for name, text in found})
    return said


def _type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type in the words of someone who writes YAML."""
    examples = _examples(metadata)
    if examples:
        return f"text such as `{examples[0]}`"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0], inner[1:])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in {Union, UnionType}:
        return " or ".join(_type(each) for each in inner if each is not type(None))
    if origin in {list, tuple, Sequence}:
        return f"list of {_type(inner[0])}"
    if origin in {dict, Mapping}:
        return f"mapping to {_type(inner[1])}"
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return " or ".join(f"`{each.value}`" for each in annotation)
    name = getattr(annotation, "__name__", str(annotation))
    return (
        f"[{name}](#{name.lower()})"
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel)
        else _WORDS.get(name, name)
    )


def _default_value(field: FieldInfo) -> str:
    """As it would be written in YAML: a time or a size has its unit."""
    value = field.get_default(call_default_factory=True)
    examples = _examples([*field.metadata, *(part for each in get_args(field.annotation) for part in get_args(each)[1:])])
    if examples and isinstance(value, int | float):
        units = (
            (("B", 1), ("KB", 10**3), ("MB", 10**6), ("GB", 10**9))
            if examples[0].endswith("B")
            else (("s", 1), ("m", 60), ("h", 3600))
        )
        unit, size = max((each for each in units if value % each[1] == 0), key=lambda each: each[1], default=units[0])
        return f"`{value / size:g}{unit}`" if value else "`0`"
    return _plain(value)


def _examples(metadata: Sequence[Any]) -> Sequence[str]:
    schemas = (each.json_schema or {} for each in metadata if isinstance(each, WithJsonSchema))
    return next((schema.get("examples", ()) for schema in schemas), ())


def _plain(value: object) -> str:
    if value is None or value in ("", (), {}) or isinstance(value, BaseModel):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write the pages, or with `--check` compare."""
    stale = []
    for name, text in pages().items():
        path = REFERENCE / name
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            REFERENCE.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"out of date: {', '.join(stale)}; `make docs` writes them anew\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
