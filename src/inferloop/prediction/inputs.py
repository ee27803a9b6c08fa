"""What callers hand in, as Samples; and the bytes of a Sample that the ledger keeps."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import InvalidInput
from inferloop.core.sample import Sample
from inferloop.core.signature import Signature
from inferloop.core.transform import FieldKind

Given = Sample | Mapping[str, Any] | str | bytes
"""A Sample, its fields, or for a model of one field just the value."""

_ENCODED = {FieldKind.IMAGE: "image", FieldKind.AUDIO: "audio"}


def as_sample(given: Given, fields: Mapping[str, FieldKind]) -> Sample:
    """A Sample of what a caller gave.

    Raises:
        InvalidInput: a bare value for a model of several fields, or no kind of value that a field holds.
    """
    if isinstance(given, Sample):
        return given
    if isinstance(given, Mapping):
        return Sample(fields=given)
    if isinstance(given, str | bytes) and len(fields) == 1:
        return Sample(fields={next(iter(fields)): given})
    raise InvalidInput(
        f"a {type(given).__name__} is no sample for this model", hint=f"give its fields by name: {', '.join(fields) or 'none'}"
    )


def key_of(given: Given) -> str:
    """The key of a Sample; empty for everything else."""
    return given.key if isinstance(given, Sample) else ""


def stored_form(sample: Sample, fields: Mapping[str, FieldKind]) -> tuple[bytes | None, str]:
    """The bytes that the ledger keeps of the fields that the model reads, and their kind.

    One text is UTF-8 (`text`), one encoded image or recording is as it came (`image`, `audio`), everything else is a JSON
    object of the fields (`json`; bytes in base64). `json` bytes are None if a field holds something that JSON cannot say.
    """
    if len(fields) == 1:
        name, kind = next(iter(fields.items()))
        value = sample.fields.get(name)
        if isinstance(value, str) and kind is FieldKind.TEXT:
            return value.encode("utf-8", "surrogatepass"), "text"
        if isinstance(value, bytes):
            return value, _ENCODED.get(kind, "bytes")
    try:
        return msgspec.json.encode({name: sample.fields.get(name) for name in fields}, enc_hook=_plain), "json"
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None, "json"


def stored_sample(body: bytes | None, kind: str, fields: Mapping[str, FieldKind]) -> Sample | None:
    """The Sample of a `stored_form`; None if nothing is kept, only its digest, or what does not fit the fields."""
    if body is None or not fields:
        return None
    name, wanted = next(iter(fields.items()))
    if kind == "json":
        return _json_sample(body, fields)
    if kind == "text" and wanted is FieldKind.TEXT:
        return Sample(fields={name: body.decode("utf-8", "surrogatepass")})
    if kind in {"image", "audio", "bytes"}:
        return Sample(fields={name: body})
    return None


def _json_sample(body: bytes, fields: Mapping[str, FieldKind]) -> Sample | None:
    try:
        values: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
        for name, kind in fields.items():
            if kind in _ENCODED and isinstance(values.get(name), str):
                values[name] = base64.b64decode(values[name], validate=True)
    except (msgspec.MsgspecError, ValueError):
        return None
    return Sample(fields=values)


def row_tensors(sample: Sample, signature: Signature) -> Tensors:
    """The tensors of a Sample for a model without transforms: its fields are the inputs, with or without the batch axis.

    Raises:
        InvalidInput: an input is missing, is no array of numbers, or has another shape.
    """
    tensors: Tensors = {}
    for spec in signature.inputs:
        if spec.name not in sample.fields:
            raise InvalidInput(f"input {spec.name!r} is missing", hint=f"the model takes {spec}")
        try:
            array = np.asarray(sample.fields[spec.name], dtype=spec.dtype.numpy)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"input {spec.name!r} is no array of {spec.dtype}: {error}") from error
        tensors[spec.name] = array[None] if spec.batched and array.ndim == len(spec.shape) - 1 else array
    if signature.check(tensors) != 1:
        raise InvalidInput("a sample is one row", hint="give the rows as a list of samples, or send tensors")
    return tensors


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def embedding_bytes(row: Array) -> bytes:
    """One row of the embedding output as the ledger keeps it: little-endian float32."""
    return row.astype("<f4", copy=False).tobytes()
