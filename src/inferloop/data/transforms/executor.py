"""All declared transforms of a Bundle: a Sample to tensors, output tensors to Scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np

from inferloop.core.bundle import Bundle
from inferloop.core.datatypes import Array, Tensors
from inferloop.core.errors import InferloopError, InvalidBundle, InvalidInput, Unsupported
from inferloop.core.sample import Sample
from inferloop.core.signature import TensorSpec
from inferloop.core.transform import FieldKind, OutputTransform
from inferloop.data.transforms.fields import CompiledField, compile_field
from inferloop.data.transforms.operation import Operation, bind, chain, make
from inferloop.data.transforms.scores import Identity, Scores, Sigmoid, Softmax, Threshold, TopK, scorer

OUTPUT_OPERATIONS: dict[str, type[Operation]] = {
    "softmax": Softmax,
    "sigmoid": Sigmoid,
    "top_k": TopK,
    "threshold": Threshold,
    "identity": Identity,
}
"""The operations on outputs, by the name that a declaration uses."""

_MEASURED = (FieldKind.SIGNAL, FieldKind.NUMBER, FieldKind.AUDIO)


class TransformExecutor:
    """Runs what a Bundle declares. Immutable; all methods may be called from any thread at the same time.

    Raises:
        InvalidBundle: a declaration that cannot work; names the field, the step and the option.
        MissingDependency: a step needs a package that is not installed.
    """

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._fields = tuple(compile_field(transform, bundle.asset) for transform in manifest.transforms.inputs)
        self._inputs = {spec.name: spec for spec in manifest.signature.inputs}
        self._check_inputs()
        self._output, self._score = _compile_output(manifest.transforms.outputs, bundle)

    @property
    def signature_fields(self) -> dict[str, FieldKind]:
        """The fields that a Sample must bring, with their kinds."""
        return {part: field.transform.kind for field in self._fields for part in field.parts}

    def apply(self, sample: Sample) -> Tensors:
        """The tensors of one Sample: one row, exactly the dtypes of the Signature. They never depend on other samples.

        Raises:
            InvalidInput: a field is missing or not what its kind says.
            Unsupported: the Bundle declares no transforms and takes tensors only.
        """
        if not self._fields:
            raise Unsupported("the model declares no fields, it takes tensors only", hint=f"inputs: {', '.join(self._inputs)}")
        tensors: Tensors = {}
        for field in self._fields:
            values = field.apply(sample.fields)
            for name, value in zip(field.transform.outputs, values, strict=True):
                tensors[name] = _tensor(value, self._inputs[name], field)
        return tensors

    def apply_many(self, samples: Sequence[Sample]) -> list[Tensors | InferloopError]:
        """The tensors of each Sample as `apply` makes them, or its error; what is the same for all is done once."""
        rows: list[Tensors | InferloopError] = [self._values(sample) for sample in samples]
        good = [row for row in rows if not isinstance(row, InferloopError)]
        if good and self._together(good):
            return rows
        return [self._attempt(sample) for sample in samples]

    def _values(self, sample: Sample) -> Tensors | InferloopError:
        """The values of one Sample before they have the dtype and the batch axis of the Signature."""
        try:
            return {
                name: value
                for field in self._fields
                for name, value in zip(field.transform.outputs, field.apply(sample.fields), strict=True)
            }
        except InferloopError as error:
            return error

    def _together(self, rows: Sequence[Tensors]) -> bool:
        """Finish the values of several Samples in place; false, with nothing changed, if one needs to be looked at alone."""
        finished: Tensors = {}
        for field in self._fields:
            for name in field.transform.outputs:
                values = [row[name] for row in rows]
                first = values[0]
                if any(value.shape != first.shape or value.dtype != first.dtype for value in values):
                    return False
                stack = np.stack if first.ndim == len(self._inputs[name].shape) - 1 else np.concatenate
                try:
                    finished[name] = _tensor(stack(values), self._inputs[name], field)
                except (InferloopError, ValueError):
                    return False
                if len(finished[name]) != len(rows):
                    return False
        for name, array in finished.items():
            for place, row in enumerate(rows):
                row[name] = array[place : place + 1]
        return bool(finished)

    def _attempt(self, sample: Sample) -> Tensors | InferloopError:
        try:
            return self.apply(sample)
        except InferloopError as error:
            return error

    def scores(self, outputs: Tensors) -> Scores:
        """The scores of every row of a batch.

        Raises:
            Unsupported: the Bundle does not say which output holds scores.
        """
        if self._score is None:
            raise Unsupported("the model does not declare which output holds its scores")
        return self._score(outputs[self._output])

    def libraries(self) -> dict[str, str]:
        """The installed version of each package that decides the numbers, by name; training records them in the lineage."""
        names = {"numpy", *(library for field in self._fields for library in field.libraries)}
        return {name: version(name) for name in sorted(names)}

    def _check_inputs(self) -> None:
        named = [name for field in self._fields for name in field.transform.outputs]
        for name in named:
            if name not in self._inputs:
                raise InvalidBundle(
                    f"a transform yields {name!r}, which the model does not take", hint=f"known: {', '.join(self._inputs)}"
                )
        missing = [name for name in self._inputs if name not in named]
        if named and (missing or len(set(named)) < len(named)):
            problem = f"no transform yields the input {missing[0]!r}" if missing else "two transforms yield the same input"
            raise InvalidBundle(problem)


def _compile_output(declared: tuple[OutputTransform, ...], bundle: Bundle) -> tuple[str, Callable[[Array], Scores] | None]:
    if not declared:
        return "", None
    first = declared[0]
    where = f"transform of output {first.output!r}"
    if first.output not in {spec.name for spec in bundle.signature.outputs}:
        raise InvalidBundle(f"{where}: the model has no such output")
    made = [make(OUTPUT_OPERATIONS, step, where) for step in first.steps]
    chain([(step.op, operation) for step, operation in zip(first.steps, made, strict=True)], "scores", where)
    for operation in made:
        if isinstance(operation, Threshold) and operation.label not in bundle.labels:
            raise InvalidBundle(f"{where}: threshold: no label {operation.label!r}", hint=f"known: {', '.join(bundle.labels)}")
    bound = tuple(bind(step.op, operation, bundle.asset, where) for step, operation in zip(first.steps, made, strict=True))
    return first.output, scorer(bound, bundle.labels, first.output)


def _tensor(value: Array, spec: TensorSpec, field: CompiledField) -> Array:
    wanted = spec.dtype.numpy
    if value.dtype != wanted:
        if not np.can_cast(value.dtype, wanted, "same_kind"):
            raise InvalidBundle(f"field {field.transform.field!r} yields {value.dtype}, input {spec.name!r} is {spec.dtype}")
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite and is refused below
            value = value.astype(wanted)
    if field.transform.kind in _MEASURED and wanted.kind == "f" and not np.isfinite(value).all():
        count = int(value.size - np.isfinite(value).sum())
        raise InvalidInput(
            f"field {field.transform.field!r} has {count} value{'s' if count != 1 else ''} missing or not finite",
            hint="the operation `fill` replaces them",
        )
    row = np.ascontiguousarray(value)[None] if value.ndim == len(spec.shape) - 1 else value
    spec.check(row)
    return row
