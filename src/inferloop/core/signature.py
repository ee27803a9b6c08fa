"""What a model takes and gives: named tensors, checked once at the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np

from inferloop.core.datatypes import Array, DataType
from inferloop.core.errors import InvalidInput


class Role(StrEnum):
    """What a tensor is for."""

    DATA = "data"
    STATE = "state"
    EMBEDDING = "embedding"


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor. Without slots: what `check` asks of it at every request is computed once.

    Attributes:
        shape: one entry an axis, the batch axis included; `None` is a free axis.
    """

    name: str
    dtype: DataType
    shape: tuple[int | None, ...]
    role: Role = Role.DATA

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{shape_text(self.shape)}"

    @property
    def batched(self) -> bool:
        """Whether axis 0 is a free batch axis."""
        return bool(self.shape) and self.shape[0] is None

    @property
    def has_fixed_rows(self) -> bool:
        """Whether there are axes behind the first, none of them free."""
        return len(self.shape) > 1 and None not in self.shape[1:]

    def fits(self, array: Array) -> bool:
        """Whether dtype, rank and every fixed axis agree."""
        shape = array.shape
        if array.dtype != self._numpy or len(shape) != self._rank:
            return False
        for axis, size in self._fixed:  # noqa: SIM110 - a generator costs more, and every tensor of every request is asked
            if shape[axis] != size:
                return False
        return True

    def check(self, array: Array) -> None:
        """Raise `InvalidInput` with both shapes unless the array fits."""
        if not self.fits(array):
            raise InvalidInput(
                f"input {self.name!r} is {_type_text(array)}{list(array.shape)}, "
                f"the model takes {self.dtype}{shape_text(self.shape)}"
            )

    @cached_property
    def _rank(self) -> int:
        return len(self.shape)

    @cached_property
    def _numpy(self) -> np.dtype[Any]:
        return self.dtype.numpy

    @cached_property
    def _fixed(self) -> tuple[tuple[int, int], ...]:
        return tuple((axis, size) for axis, size in enumerate(self.shape) if size is not None)


@dataclass(frozen=True)
class Signature:
    """The named inputs and outputs of a model. Without slots, as `TensorSpec`."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @cached_property
    def batched(self) -> bool:
        """Whether rows of several requests may share one run: every tensor has a free axis 0."""
        return bool(self.inputs) and all(spec.batched for spec in (*self.inputs, *self.outputs))

    @property
    def embedding(self) -> TensorSpec | None:
        """The output that a head can be refitted on, if there is one."""
        return next((spec for spec in self.outputs if spec.role is Role.EMBEDDING), None)

    def input(self, name: str) -> TensorSpec:
        """The input of that name, or `InvalidInput` with the known ones."""
        return _find(self.inputs, name, "input")

    def output(self, name: str) -> TensorSpec:
        """The output of that name, or `InvalidInput` with the known ones."""
        return _find(self.outputs, name, "output")

    def check(self, inputs: Mapping[str, Array]) -> int:
        """Check names, dtypes, shapes and one common batch size.

        Returns:
            The number of rows (axis 0); 1 for a model without a batch axis.

        Raises:
            InvalidInput: a name is missing or unknown, or a tensor does not fit.
        """
        rows = -1
        if len(inputs) == len(self._plain):
            for name, dtype, row in self._plain:
                array = inputs.get(name)
                if array is None or array.dtype is not dtype or (shape := array.shape)[1:] != row:
                    return self._check_each(inputs)
                if rows != shape[0]:
                    if rows >= 0:
                        return self._check_each(inputs)
                    rows = shape[0]
        return rows if rows > 0 else self._check_each(inputs)

    @cached_property
    def _plain(self) -> tuple[tuple[str, np.dtype[Any], tuple[int | None, ...]], ...]:
        """Name, dtype and row of each input of a model that batches rows of one size each, as most do; else empty."""
        if not self.batched or not all(spec.has_fixed_rows for spec in self.inputs):
            return ()
        return tuple((spec.name, spec.dtype.numpy, spec.shape[1:]) for spec in self.inputs)

    def _check_each(self, inputs: Mapping[str, Array]) -> int:
        """The whole check, which says what is wrong."""
        for spec in self.inputs:
            if spec.name not in inputs:
                raise InvalidInput(f"input {spec.name!r} is missing", hint=f"the model takes {spec}")
            spec.check(inputs[spec.name])
        if len(inputs) > len(self.inputs):
            self._refuse_unknown(inputs)
        return self._rows(inputs) if self.batched else 1

    def _refuse_unknown(self, inputs: Mapping[str, Array]) -> None:
        known = [spec.name for spec in self.inputs]
        name = next(name for name in inputs if name not in known)
        raise InvalidInput(f"unexpected input {name!r}", hint=f"the model takes: {', '.join(known)}")

    def _rows(self, inputs: Mapping[str, Array]) -> int:
        count = len(inputs[self.inputs[0].name])
        if len(inputs) > 1 and any(len(array) != count for array in inputs.values()):
            counts = ", ".join(f"{name}: {len(array)}" for name, array in inputs.items())
            raise InvalidInput(f"inputs differ in their number of rows ({counts})")
        if count < 1:
            raise InvalidInput("the batch is empty", hint="send at least one row")
        return count


def shape_text(shape: tuple[int | None, ...]) -> str:
    """A shape for people: `[N, 3, 32, 32]`, free axes as N."""
    return "[" + ", ".join("N" if size is None else str(size) for size in shape) + "]"


def _find(specs: tuple[TensorSpec, ...], name: str, side: str) -> TensorSpec:
    for spec in specs:
        if spec.name == name:
            return spec
    raise InvalidInput(f"no {side} named {name!r}", hint=f"known: {', '.join(spec.name for spec in specs)}")


def _type_text(array: Array) -> str:
    try:
        return str(DataType.of(array))
    except InvalidInput:
        return str(array.dtype)
