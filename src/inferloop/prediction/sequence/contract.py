"""Which tensors of a stateful model the server keeps and fills in, and what it puts there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import InvalidBundle, InvalidInput
from inferloop.core.signature import Role, Signature, TensorSpec
from inferloop.prediction.options import SequenceStep
from inferloop.prediction.settings import Control, ControlKind, SequenceSettings, StatePair

_SAYS: dict[ControlKind, Callable[[SequenceStep], bool]] = {
    ControlKind.START: lambda step: step.start,
    ControlKind.END: lambda step: step.end,
    ControlKind.READY: lambda step: True,  # noqa: ARG005  # every request that runs is ready
}


@dataclass(frozen=True, slots=True)
class Contract:
    """The tensors between the server and a stateful model.

    Attributes:
        states: input and output of each state tensor.
        controls: what each control input gets.
    """

    states: tuple[tuple[TensorSpec, TensorSpec], ...]
    controls: tuple[tuple[TensorSpec, Control], ...]

    @classmethod
    def of(cls, signature: Signature, settings: SequenceSettings) -> Contract:
        """Find the tensors in the Signature.

        Raises:
            InvalidBundle: a tensor is not there, or a pair does not fit together.
        """
        pairs = settings.states or _pairs(signature)
        taken = {spec.name: spec for spec in signature.inputs}
        given = {spec.name: spec for spec in signature.outputs}
        states = tuple((_find(taken, pair.input, "input"), _find(given, pair.output, "output")) for pair in pairs)
        for before, after in states:
            _check(before, after)
        return cls(states, tuple((_find(taken, control.input, "input"), control) for control in settings.controls))

    @property
    def inputs(self) -> frozenset[str]:
        """The inputs that the server fills in."""
        return frozenset(spec.name for spec in (*(before for before, _ in self.states), *(spec for spec, _ in self.controls)))

    @property
    def outputs(self) -> frozenset[str]:
        """The outputs that the server keeps."""
        return frozenset(after.name for _, after in self.states)

    def initial(self) -> Tensors:
        """The state before the first request: zeros, free axes of length 1."""
        return {before.name: _filled(before, b"" if before.dtype is DataType.BYTES else 0) for before, _ in self.states}

    def asked(self, step: SequenceStep) -> Tensors:
        """The control inputs of one request. Raises `InvalidInput` for an id that the model's input cannot hold."""
        return {spec.name: _control(spec, control, step) for spec, control in self.controls}

    def kept(self, outputs: Tensors) -> Tensors:
        """Take the new state out of the outputs; copies, which do not hold on to the batch."""
        return {before.name: outputs.pop(after.name).copy() for before, after in self.states}


def _pairs(signature: Signature) -> tuple[StatePair, ...]:
    taken = [spec.name for spec in signature.inputs if spec.role is Role.STATE]
    given = [spec.name for spec in signature.outputs if spec.role is Role.STATE]
    if len(taken) != len(given):
        raise InvalidBundle(
            f"the model has the state inputs {taken} and the state outputs {given}", hint="name the pairs in the settings"
        )
    return tuple(StatePair(before, after) for before, after in zip(taken, given, strict=True))


def _find(specs: dict[str, TensorSpec], name: str, side: str) -> TensorSpec:
    if name not in specs:
        raise InvalidBundle(f"the model has no {side} {name!r} for its sequences", hint=f"known: {', '.join(specs)}")
    return specs[name]


def _check(before: TensorSpec, after: TensorSpec) -> None:
    fits = before.dtype is after.dtype and len(before.shape) == len(after.shape)
    if not fits or any(None not in sizes and sizes[0] != sizes[1] for sizes in zip(before.shape, after.shape, strict=False)):
        raise InvalidBundle(f"state output {after} does not fit the input {before} that it goes into")


def _filled(spec: TensorSpec, value: object) -> Array:
    shape = tuple(1 if size is None else size for size in spec.shape)
    filled: Array = np.full(shape, value, dtype=spec.dtype.numpy)
    return filled


def _control(spec: TensorSpec, control: Control, step: SequenceStep) -> Array:
    if control.kind is not ControlKind.CORRID:
        return _filled(spec, control.true if _SAYS[control.kind](step) else control.false)
    if spec.dtype is DataType.BYTES:
        return _filled(spec, str(step.id).encode())
    try:
        return _filled(spec, int(step.id))
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"sequence id {step.id!r} is no {spec.dtype}, which the model takes for input {spec.name!r}"
        ) from error
