"""`bundle.json`: what a Bundle says of itself, its schema version and the way forward from older ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from inferloop.core.errors import InvalidBundle, NewerSchema
from inferloop.core.signature import Signature
from inferloop.core.transform import Transforms

SCHEMA = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From schema N to N + 1, by N."""

_NOT_CONTENT = ("name", "version", "digest", "created")


@dataclass(frozen=True, slots=True)
class Head:
    """The last, linear layer: `output = embedding @ weight + bias`, so that it can be refitted without a framework.

    Attributes:
        embedding: the output tensor [N, D] that the head reads.
        output: the output tensor [N, C] that the head writes.
        weight: the initializer [D, C] in `model.onnx`.
        bias: the initializer [C] in `model.onnx`.
    """

    embedding: str
    output: str
    weight: str
    bias: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of `bundle.json`.

    Attributes:
        version: its number in a registry; 0 outside of one.
        digest: `sha256:` over everything but name, version and date.
        labels: the classes, in the order of the scores; empty for a model without classes.
        files: SHA-256 of every other file in the directory, by relative path.
        lineage: where it comes from: data digest, config, code version, seed, environment, parent.
        parity: proof that it computes the same as its source.
        evaluation: figures measured when it was made.
    """

    name: str
    signature: Signature
    schema: int = SCHEMA
    version: int = 0
    digest: str = ""
    created: str = ""
    description: str = ""
    owner: str = ""
    license: str = ""
    labels: tuple[str, ...] = ()
    transforms: Transforms = field(default_factory=Transforms)
    head: Head | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """As it stands in `bundle.json`."""
        return json.dumps(asdict(self), indent=2, sort_keys=True).encode() + b"\n"

    def content_digest(self) -> str:
        """`sha256:` of the content: the same bytes and meaning give the same digest under any name."""
        content = {key: value for key, value in asdict(self).items() if key not in _NOT_CONTENT}
        return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def parse(text: bytes, where: str) -> Manifest:
    """Read `bundle.json`, migrating an older schema forward.

    Raises:
        InvalidBundle: not JSON, not a manifest, or a value of the wrong type; one line with its path.
        NewerSchema: written by a newer inferloop.
    """
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair cannot be stored, sent or printed
    except ValueError as error:
        raise InvalidBundle(f"{where} is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int):
        raise InvalidBundle(f"{where} is not a bundle manifest: it has no integer 'schema'")
    try:
        return msgspec.convert(migrate(content, where), Manifest)
    except msgspec.ValidationError as error:
        raise InvalidBundle(f"{where}: {error}") from error


def migrate(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Bring a manifest of an older schema to the current one, step by step."""
    if content["schema"] > SCHEMA:
        raise NewerSchema(f"{where} has schema {content['schema']}, this inferloop reads up to {SCHEMA}", hint="update inferloop")
    while content["schema"] < SCHEMA:
        step = MIGRATIONS.get(content["schema"])
        if step is None:
            raise InvalidBundle(f"{where} has schema {content['schema']}, which no release wrote")
        content = step(content)
    return content
