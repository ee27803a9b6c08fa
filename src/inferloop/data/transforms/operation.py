"""What a declared step is: options that are checked when a Bundle is loaded, and one function.

Every value between two steps has a kind, so that a chain that cannot work is refused before the first sample:

    text -tokenize-> tensors        bytes -decode-> picture -resize-> picture -to_float-> pixels -layout-> array
    text -ngrams---> tensors        bytes -decode_wav-> signal -window-> signal -scale-> signal -layout-> array
                                    number -vector-> array
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from inferloop.core.errors import InvalidBundle
from inferloop.core.transform import FieldKind, Step

Assets = Callable[[str], Path]
"""The path of a file of the Bundle by its relative name."""

START: dict[FieldKind, str] = {
    FieldKind.TEXT: "text",
    FieldKind.IMAGE: "bytes",
    FieldKind.AUDIO: "bytes",
    FieldKind.SIGNAL: "signal",
    FieldKind.NUMBER: "number",
}
"""The kind of value that a field starts with."""


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One operation with its options as fields. Stateless once bound; called from any thread.

    Attributes:
        takes: the kinds of value it accepts.
        gives: the kind it yields; empty for the kind that came in.
        library: the package whose arithmetic decides the result, beside NumPy.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    gives: ClassVar[str] = ""
    library: ClassVar[str] = ""

    def __call__(self, value: Any) -> Any:
        """Apply it to one value.

        Raises:
            InvalidInput: the value cannot be what the field says.
        """
        raise NotImplementedError

    def bind(self, assets: Assets) -> Callable[[Any], Any]:
        """The function to call for each value; an operation that needs files of the Bundle reads them here.

        Raises:
            InvalidBundle: an asset is missing or not what it should be, or two options contradict each other.
            MissingDependency: the package that the operation needs is not installed.
        """
        del assets
        return self


def make(operations: dict[str, type[Operation]], step: Step, where: str) -> Operation:
    """The operation of a declared step, its options checked.

    Raises:
        InvalidBundle: no such operation, an unknown option, or a value out of range; names the step.
    """
    kind = operations.get(step.op)
    if kind is None:
        raise InvalidBundle(f"{where}: no operation named {step.op!r}", hint=f"known: {', '.join(sorted(operations))}")
    try:
        return msgspec.convert(dict(step.options), kind)
    except msgspec.ValidationError as error:
        known = ", ".join(kind.__struct_fields__) or "none"
        text = str(error)
        raise InvalidBundle(f"{where}: {step.op}: {text[:1].lower()}{text[1:]}", hint=f"options of {step.op}: {known}") from error


def chain(made: Sequence[tuple[str, Operation]], start: str, where: str) -> str:
    """Check that each named operation accepts what the one before yields; return the kind at the end."""
    kind = start
    for index, (name, operation) in enumerate(made):
        if kind not in operation.takes:
            raise InvalidBundle(f"{where}: step {index + 1}, {name}, takes {' or '.join(operation.takes)}, it would get {kind}")
        kind = operation.gives or ("pixels" if kind == "picture" else kind)
    return kind


def bind(name: str, operation: Operation, assets: Assets, where: str) -> Callable[[Any], Any]:
    """The same as `operation.bind`, with the place in front of what is wrong."""
    try:
        return operation.bind(assets)
    except InvalidBundle as error:
        raise InvalidBundle(f"{where}: {name}: {error.message}", hint=error.hint) from error
