"""YAML text to plain values: the scalars of YAML 1.2, no key twice, no objects."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from inferloop.core.errors import InvalidConfig, NotFound

_MOST_VALUES = 1_000_000


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2: `no` is text, `1e-3` a number, a date stays text, no key comes twice."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 16) if text.startswith("0x") else int(text)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key is not None and key != "<<" and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} comes twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read one YAML file whose top level is a mapping. `${...}` references stay as they are.

    Raises:
        NotFound: there is no such file.
        InvalidConfig: not readable, not UTF-8, not YAML, a key comes twice, or the top level is no mapping.
    """
    source = Path(path)
    try:
        return parse_yaml(source.read_bytes(), str(path))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"no file {source}") from error
    except OSError as error:
        raise InvalidConfig([f"{source}: cannot be read: {error.strerror}"]) from error


def parse_yaml(text: bytes | str, where: str) -> dict[str, Any]:
    """The same for a text; `where` names it in messages."""
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        content = yaml.load(decoded, _Loader)  # noqa: S506  # _Loader is a SafeLoader
    except UnicodeDecodeError as error:
        raise InvalidConfig([f"{where}: is not UTF-8 at byte {error.start}"]) from error
    except yaml.MarkedYAMLError as error:
        raise InvalidConfig([f"{where}: {_yaml_problem(error)}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidConfig([f"{where}: is not YAML: {str(error).splitlines()[0]}"]) from error
    if _values(content, {}) > _MOST_VALUES:
        raise InvalidConfig([f"{where}: its aliases stand for more than {_MOST_VALUES:,} values"])
    if not isinstance(content, dict):
        kind = "empty" if content is None else f"a {type(content).__name__}"
        raise InvalidConfig([f"{where}: must be a mapping of keys to values, it is {kind}"])
    return content


def _values(content: Any, known: dict[int, float]) -> float:
    """How many values this is once every alias is written out; infinite where one contains itself."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        known[id(content)] = math.inf
        children = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_values(child, known) for child in children)
    return known[id(content)]


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + str(error.problem or error.context)
