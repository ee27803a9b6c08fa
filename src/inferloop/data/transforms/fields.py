"""One field of a Sample to the values of its tensors: the declared steps, compiled once."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidBundle, InvalidInput
from inferloop.core.transform import FieldKind, FieldTransform
from inferloop.data.transforms.image import Decode, Normalize, Resize, Standardize, ToFloat, pixels
from inferloop.data.transforms.operation import START, Assets, Operation, bind, chain, make
from inferloop.data.transforms.signal import Clip, DecodeWav, Fill, Layout, Scale, Vector, Window, as_signal
from inferloop.data.transforms.text import NgramOptions, Tokenize, well_formed

OPERATIONS: dict[str, type[Operation]] = {
    "tokenize": Tokenize,
    "ngrams": NgramOptions,
    "decode": Decode,
    "resize": Resize,
    "to_float": ToFloat,
    "normalize": Normalize,
    "standardize": Standardize,
    "layout": Layout,
    "decode_wav": DecodeWav,
    "window": Window,
    "scale": Scale,
    "clip": Clip,
    "fill": Fill,
    "vector": Vector,
}
"""The operations on fields, by the name that a declaration uses."""


@dataclass(frozen=True, slots=True)
class CompiledField:
    """The steps of one field, ready to run from any thread.

    Attributes:
        parts: the Sample's fields that make up the value; one, unless `vector` names several.
        libraries: packages whose arithmetic decides the result, beside NumPy.
    """

    transform: FieldTransform
    parts: tuple[str, ...]
    libraries: tuple[str, ...]
    steps: tuple[Callable[[Any], Any], ...]

    def apply(self, fields: Mapping[str, Any]) -> tuple[Array, ...]:
        """The values of the tensors in `transform.outputs`, without a batch axis.

        Raises:
            InvalidInput: the field is missing, or not what its kind says; names the field.
        """
        name = self.transform.field
        value = self._value(fields)
        try:
            value = _coerced(value, self.transform.kind)
            for step in self.steps:
                value = step(value)
        except InvalidInput as error:
            raise type(error)(f"field {name!r}: {error.message}", hint=error.hint) from error
        if isinstance(value, tuple):
            return value[: len(self.transform.outputs)]
        return (pixels(value),)

    def _value(self, fields: Mapping[str, Any]) -> Any:
        name = self.transform.field
        if name in fields and fields[name] is not None:
            return fields[name]
        missing = [part for part in self.parts if fields.get(part) is None]
        if missing or self.parts == (name,):
            known = ", ".join(sorted(fields)) or "none"
            raise InvalidInput(f"field {(missing or [name])[0]!r} is missing", hint=f"the sample has: {known}")
        return [_number(fields[part], part) for part in self.parts]


def compile_field(transform: FieldTransform, assets: Assets) -> CompiledField:
    """Check the declaration of one field and make it callable; training uses it before there is a Bundle.

    Args:
        transform: the declaration.
        assets: the path of a file by its name in the Bundle.

    Raises:
        InvalidBundle: an unknown operation or option, or steps that do not fit together; names the step.
        MissingDependency: a step needs a package that is not installed.
    """
    where = f"transform of field {transform.field!r}"
    operations = [make(OPERATIONS, step, where) for step in transform.steps]
    kind = chain([(step.op, made) for step, made in zip(transform.steps, operations, strict=True)], START[transform.kind], where)
    if kind in ("text", "bytes"):
        raise InvalidBundle(f"{where}: its steps end with {kind}, not with a tensor")
    if not transform.outputs or (len(transform.outputs) > 1 and kind != "tensors"):
        raise InvalidBundle(f"{where}: it names {len(transform.outputs)} tensors, its steps yield 1")
    parts = next((tuple(made.fields) for made in operations if isinstance(made, Vector) and made.fields), (transform.field,))
    libraries = tuple(sorted({made.library for made in operations if made.library}))
    bound = [bind(step.op, made, assets, where) for step, made in zip(transform.steps, operations, strict=True)]
    return CompiledField(transform, parts, libraries, tuple(bound))


def _coerced(value: Any, kind: FieldKind) -> Any:
    if kind is FieldKind.TEXT:
        return _text(value)
    if kind in (FieldKind.IMAGE, FieldKind.AUDIO):
        return _encoded(value, kind)
    array = _numbers(value, kind)
    return as_signal(array) if kind is FieldKind.SIGNAL else np.atleast_1d(array)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"the text is not UTF-8 at byte {error.start}") from error
    if not isinstance(value, str):
        raise InvalidInput(f"must be text, it is {_type_name(value)}")
    return well_formed(value)


def _encoded(value: Any, kind: FieldKind) -> Any:
    if isinstance(value, str):
        head, _, rest = value.partition(";base64,")
        try:
            return base64.b64decode(rest if head.startswith("data:") else value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(f"must be {kind} bytes or their base64 text, it is other text") from error
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, bytes | np.ndarray):
        raise InvalidInput(f"must be {kind} bytes, it is {_type_name(value)}")
    return value


def _numbers(value: Any, kind: FieldKind) -> Array:
    if isinstance(value, str | bytes):
        raise InvalidInput(f"must be {'numbers' if kind is FieldKind.SIGNAL else 'a number'}, it is {_type_name(value)}")
    try:
        array = value if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" else np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"must be numbers, it is {_type_name(value)} with something else in it") from error
    return array


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool | int | float | np.number):
        try:
            return float(value)
        except OverflowError as error:
            raise InvalidInput(f"field {name!r} is too large a number") from error
    raise InvalidInput(f"field {name!r} must be a number, it is {_type_name(value)}")


def _type_name(value: Any) -> str:
    names = {str: "text", bytes: "bytes", bool: "true or false", list: "a list", dict: "a mapping", type(None): "nothing"}
    return names.get(type(value), f"a {type(value).__name__}")
