"""One body or file to a Sample of a model's fields: what REST and the command line take besides tensors."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inferloop.core.errors import InvalidInput, NotFound, StorageError, TooLarge
from inferloop.core.sample import Sample
from inferloop.core.transform import FieldKind
from inferloop.data.codecs.content import describe, is_image, is_wav
from inferloop.data.codecs.envelope import kind_of
from inferloop.data.codecs.text import checked_encoding, decode_text

MAX_FILE_BYTES = 256 * 2**20

_JSON_TYPES = ("application/json", "text/json")
_UNKNOWN_TYPES = ("", "application/octet-stream", "application/x-www-form-urlencoded")
_SUFFIXES = {".json": "application/json", ".txt": "text/plain", ".npy": "application/x-npy"}


def sample_from_body(body: bytes, content_type: str, fields: Mapping[str, FieldKind]) -> Sample:
    """The Sample of one request body.

    A JSON object holds the fields by name (images and recordings as base64). An image, a recording or text is the one field
    of that kind. Without a telling content type the first bytes decide.

    Args:
        body: as it came.
        content_type: of HTTP; parameters such as `charset` are read; may be empty.
        fields: what the model takes.

    Raises:
        InvalidInput: the body is not what the type says, or the model takes something else; says both.
    """
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if kind in _UNKNOWN_TYPES:
        kind = _sniffed(body, fields)
    if kind in _JSON_TYPES or kind.endswith("+json"):
        return Sample(fields=_json_fields(body, fields), raw=body)
    if kind == "application/x-npy":
        return Sample(
            fields={_field_of(fields, (FieldKind.SIGNAL, FieldKind.NUMBER, FieldKind.IMAGE), "an array"): _npy(body)}, raw=body
        )
    if kind.startswith("image/"):
        return Sample(fields={_field_of(fields, (FieldKind.IMAGE,), "an image"): body}, raw=body)
    if kind.startswith("audio/"):
        return Sample(fields={_field_of(fields, (FieldKind.AUDIO,), "a recording"): body}, raw=body)
    if kind.startswith("text/"):
        name = _field_of(fields, (FieldKind.TEXT,), "text")
        return Sample(fields={name: decode_text(body, _charset(parameters))}, raw=body)
    raise InvalidInput(f"content type {kind!r} is not read", hint=_takes(fields))


def sample_from_file(path: Path | str, fields: Mapping[str, FieldKind]) -> Sample:
    """The Sample of one file: an image, a WAV recording, text, JSON, or an array in `.npy`.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is not what the model takes.
        TooLarge: above 256 MiB.
    """
    source = Path(path)
    if not source.exists():
        raise NotFound(f"no file {source}")
    if not source.is_file():
        raise InvalidInput(f"{source} is no file")
    if source.stat().st_size > MAX_FILE_BYTES:
        raise TooLarge(f"{source} has {source.stat().st_size:,} bytes, at most {MAX_FILE_BYTES:,} are read")
    try:
        body = source.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {source}: {error.strerror}") from error
    try:
        return sample_from_body(body, _SUFFIXES.get(source.suffix.lower(), ""), fields)
    except InvalidInput as error:
        raise type(error)(f"{source}: {error.message}", hint=error.hint) from error


def _sniffed(body: bytes, fields: Mapping[str, FieldKind]) -> str:
    if is_image(body):
        return "image/any"
    if is_wav(body):
        return "audio/wav"
    if body.startswith(b"\x93NUMPY"):
        return "application/x-npy"
    kinds = set(fields.values())
    if FieldKind.TEXT in kinds and len(fields) == 1:
        return "text/plain"
    if len(fields) == 1 and kinds <= {FieldKind.IMAGE, FieldKind.AUDIO}:
        return f"{kinds.pop()}/any"  # not one by its first bytes: the transform says what it is instead
    return "application/json"


def _json_fields(body: bytes, fields: Mapping[str, FieldKind]) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the body is no JSON ({describe(body)}): {str(error).splitlines()[0].lower()}") from error
    if not isinstance(document, dict):
        if len(fields) != 1:
            raise InvalidInput(f"the body must be a JSON object, it is {kind_of(document)}", hint=_takes(fields))
        return {next(iter(fields)): document}
    for name in document:
        if name not in fields:
            raise InvalidInput(f"no field named {name!r}", hint=_takes(fields))
    missing = [name for name in fields if document.get(name) is None]
    if missing:
        raise InvalidInput(f"field {missing[0]!r} is missing", hint=_takes(fields))
    return document


def _field_of(fields: Mapping[str, FieldKind], kinds: tuple[FieldKind, ...], what: str) -> str:
    fitting = [name for name, kind in fields.items() if kind in kinds]
    if len(fields) > 1:
        raise InvalidInput(
            f"the model takes {len(fields)} fields, the input is {what} alone", hint=f"send a JSON object; {_takes(fields)}"
        )
    if not fitting:
        raise InvalidInput(f"the input is {what}, the model does not take that", hint=_takes(fields))
    return fitting[0]


def _takes(fields: Mapping[str, FieldKind]) -> str:
    listed = ", ".join(f"{name} ({kind})" for name, kind in fields.items())
    return f"the model takes: {listed}" if listed else "the model takes tensors only"


def _charset(parameters: str) -> str:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"')
            try:
                return checked_encoding(charset)
            except ValueError as error:
                raise InvalidInput(str(error)) from error
    return "utf-8"


def _npy(body: bytes) -> Any:
    try:
        return np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError, OverflowError) as error:
        raise InvalidInput(f"the input is no array in the NumPy format ({describe(body)})") from error
