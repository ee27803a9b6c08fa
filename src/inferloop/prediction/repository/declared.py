"""What a model's configuration says, whichever file it stands in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from inferloop.core.errors import InvalidBundle
from inferloop.core.signature import Signature, TensorSpec, shape_text
from inferloop.prediction.repository.graph import WholeSignature
from inferloop.prediction.settings import PLAIN, ModelSettings


@dataclass(frozen=True, slots=True)
class Declared:
    """One configuration.

    Attributes:
        settings: how the model is held and scheduled.
        inputs: what callers give, the batch axis included; empty if the configuration leaves it to the model.
        outputs: the same for what they get.
        batched: whether axis 0 is a batch axis; None leaves it to the model.
        model_file: the file in a version's directory; empty for `model.onnx`.
        label_file: the file of class names, one a line; empty for none.
        not_used: keys that mean nothing here.
    """

    settings: ModelSettings = PLAIN
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batched: bool | None = None
    model_file: str = ""
    label_file: str = ""
    not_used: tuple[str, ...] = field(default=())

    @property
    def is_ensemble(self) -> bool:
        """Whether it is made of other models and has no file of its own."""
        return bool(self.settings.ensemble)

    def signature(self, graph: Signature | None, where: str) -> Signature:
        """What the model takes and gives, as both its file and its configuration have it.

        Args:
            graph: every tensor of the model's file; None for an ensemble.
            where: the configuration's file, for messages.

        Raises:
            InvalidBundle: they do not agree; says both shapes and whether they include the batch axis.
        """
        if graph is None:
            return _of(self.inputs, self.outputs, batched=bool(self.batched))
        hidden = self._hidden()
        inputs = _agreed(self.inputs, graph.inputs, "input", where, hidden=hidden, batched=self.batched)
        outputs = _agreed(self.outputs, graph.outputs, "output", where, hidden=hidden, batched=self.batched)
        found = Signature(inputs, outputs)
        if self.batched:
            _check_batched(found, where)
        return found if self.batched is None or self.batched == found.batched else WholeSignature(inputs, outputs)

    def _hidden(self) -> frozenset[str]:
        """Tensors that the server fills in: they stand in the model's file and not in the configuration."""
        sequence = self.settings.sequence
        if sequence is None:
            return frozenset()
        states = {name for pair in sequence.states for name in (pair.input, pair.output)}
        return frozenset(states | {control.input for control in sequence.controls})


def _check_batched(signature: Signature, where: str) -> None:
    for side, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if not spec.batched:
                raise InvalidBundle(
                    f"{where}: max_batch_size is above 0, so {side} {spec.name!r} needs a free first axis for the batch; "
                    f"the model has {shape_text(spec.shape)}, batch not included",
                    hint="set max_batch_size to 0 and give dims with every axis, or export the model with a free first axis",
                )


def _of(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], *, batched: bool) -> Signature:
    return Signature(inputs, outputs) if batched else WholeSignature(inputs, outputs)


def _agreed(
    declared: Sequence[TensorSpec],
    graph: Sequence[TensorSpec],
    side: str,
    where: str,
    *,
    hidden: frozenset[str],
    batched: bool | None,
) -> tuple[TensorSpec, ...]:
    """The tensors of the file in its order, with the axes that the configuration fixes. Outputs may be left out."""
    if not declared:
        return tuple(graph)
    known = {spec.name: spec for spec in graph}
    for spec in declared:
        if spec.name not in known:
            raise InvalidBundle(f"{where}: the model has no {side} {spec.name!r}", hint=f"it has: {', '.join(known)}")
    wanted = {spec.name: spec for spec in declared}
    missing = [name for name in known if name not in wanted and name not in hidden]
    if side == "input" and missing:
        raise InvalidBundle(f"{where}: the model's input {missing[0]!r} is not declared")
    found = [known[name] if name in hidden else _merged(wanted[name], known[name], side, where, batched=batched)
             for name in known if name in wanted or name in hidden]  # fmt: skip
    return tuple(found)


def _merged(declared: TensorSpec, graph: TensorSpec, side: str, where: str, *, batched: bool | None) -> TensorSpec:
    pairs = zip(declared.shape, graph.shape, strict=False)
    fits = len(declared.shape) == len(graph.shape) and all(a is None or b is None or a == b for a, b in pairs)
    if not fits or declared.dtype != graph.dtype:
        batch = "batch included as the first axis" if batched else "no batch axis"
        hint = "max_batch_size above 0 adds a batch axis before dims; with 0, dims are the whole shape"
        raise InvalidBundle(
            f"{where}: {side} {graph.name!r} is declared as {declared.dtype}{shape_text(declared.shape)} ({batch}), "
            f"the model has {graph.dtype}{shape_text(graph.shape)}",
            hint=hint,
        )
    shape = tuple(b if a is None else a for a, b in zip(declared.shape, graph.shape, strict=True))
    return TensorSpec(graph.name, graph.dtype, shape, graph.role)
