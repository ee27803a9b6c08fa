"""When a step of an ensemble runs: a CEL expression over tensors of one element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition. Evaluated from any thread.

    Attributes:
        tensors: the tensors that it reads.
    """

    source: str
    tensors: tuple[str, ...]
    _program: Any = field(repr=False, compare=False)

    @classmethod
    def parse(cls, source: str) -> Condition:
        """Parse a condition. Raises `InvalidInput` for what is not CEL."""
        import cel  # 10 MB that only a server with conditions needs

        try:
            program = cel.compile(source)
        except ValueError as error:
            raise InvalidInput(f"{source!r} is not CEL: {str(error).splitlines()[0][:200]}") from error
        return cls(source, tuple(program.variables()), program)

    def holds(self, tensors: Mapping[str, Array]) -> bool:
        """Whether it is true.

        Raises:
            InvalidInput: a tensor has not one element, or the values do not go together.
        """
        values = {name: _value(name, tensors[name]) for name in self.tensors}
        try:
            found = self._program.execute(values)
        except (RuntimeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
            raise InvalidInput(f"condition {self.source!r}: {str(error).splitlines()[0][:200]}") from error
        if not isinstance(found, bool):
            raise InvalidInput(f"condition {self.source!r} is {found!r}, neither true nor false")
        return found


def _value(name: str, array: Array) -> object:
    if array.size != 1:
        raise InvalidInput(f"a condition reads tensor {name!r} of {array.size} elements, it must have one")
    value = array.item() if array.dtype != object else array.ravel()[0]
    if array.dtype.name == "bfloat16":
        return float(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
