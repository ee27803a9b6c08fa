"""The steps of an ensemble as a checked graph: what each one waits for, and that their tensors fit.

All problems are told at once. A graph that passes ends: every step runs once at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferloop.core.datatypes import DataType
from inferloop.core.errors import InferloopError, InvalidConfig, InvalidInput
from inferloop.core.signature import Signature, TensorSpec, shape_text
from inferloop.prediction.ensemble.condition import Condition
from inferloop.prediction.settings import Step

SignatureOf = Callable[[Step], Signature]
"""What the model of a step takes and gives. Raises an `InferloopError` for one that is not there or cannot be a step."""


@dataclass(frozen=True, slots=True)
class Node:
    """A step in its place.

    Attributes:
        label: names it in messages, e.g. `step 2 (echo)`.
        when: None for a step that always runs.
        needs: the ensemble's tensors that it reads, its condition's too.
    """

    step: Step
    label: str
    when: Condition | None
    needs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Graph:
    """Checked steps in an order in which each follows those that it needs.

    Attributes:
        signature: what the ensemble takes and gives.
    """

    nodes: tuple[Node, ...]
    signature: Signature

    @classmethod
    def check(cls, name: str, steps: Sequence[Step], signature_of: SignatureOf, *, signature: Signature | None = None) -> Graph:
        """Check the steps of an ensemble.

        Args:
            name: the ensemble's name, for messages.
            steps: in any order.
            signature_of: asked for the model of each step.
            signature: what the ensemble shall take and give; left out, the tensors that no step makes, and those that none reads.

        Raises:
            InvalidConfig: an unknown model or tensor, one that is made twice, a cycle, types or shapes that do not fit.
        """
        return _Check(name, steps, signature_of, signature).graph()


class _Check:
    """Collects the problems of one ensemble."""

    def __init__(self, name: str, steps: Sequence[Step], signature_of: SignatureOf, signature: Signature | None) -> None:
        self._name = name
        self._problems: list[str] = []
        self._made: dict[str, tuple[TensorSpec, str]] = {}
        self._read: list[tuple[str, TensorSpec, str]] = []
        self._declared = signature
        if not steps:
            self._problems.append(f"{name}: it has no steps")
        for spec in signature.inputs if signature is not None else ():
            self._made[spec.name] = (spec, "the request")
        self._nodes = [self._node(place, step, signature_of) for place, step in enumerate(steps, 1)]

    def graph(self) -> Graph:
        self._check_reads()
        ordered = self._ordered()
        signature = self._declared or self._derived()
        self._check_outputs(signature)
        if self._problems:
            raise InvalidConfig(self._problems)
        return Graph(tuple(ordered), signature)

    def _node(self, place: int, step: Step, signature_of: SignatureOf) -> Node:
        label = f"step {place} ({step.model})"
        condition = self._condition(step, label)
        needs = frozenset((*step.inputs.values(), *(condition.tensors if condition is not None else ())))
        node = Node(step, label, condition, needs)
        try:
            found = signature_of(step)
        except InferloopError as error:
            self._problem(label, error.message)
            for tensor in step.outputs.values():
                self._made.setdefault(tensor, (_UNKNOWN, label))
            return node
        self._take(found, node)
        self._give(found, node)
        return node

    def _condition(self, step: Step, label: str) -> Condition | None:
        if not step.when:
            return None
        try:
            return Condition.parse(step.when)
        except InvalidInput as error:
            self._problem(label, error.message)
            return None

    def _take(self, signature: Signature, node: Node) -> None:
        known = {spec.name: spec for spec in signature.inputs}
        for name in known:
            if name not in node.step.inputs:
                self._problem(node.label, f"its input {name!r} gets no tensor")
        for name, tensor in node.step.inputs.items():
            if name in known:
                self._read.append((tensor, known[name], node.label))
            else:
                self._problem(node.label, f"the model has no input {name!r}; known: {', '.join(known)}")

    def _give(self, signature: Signature, node: Node) -> None:
        known = {spec.name: spec for spec in signature.outputs}
        for name, tensor in node.step.outputs.items():
            if name not in known:
                self._problem(node.label, f"the model has no output {name!r}; known: {', '.join(known)}")
            if tensor in self._made:
                self._problem(node.label, f"tensor {tensor!r} is made twice, by {self._made[tensor][1]} already")
            else:
                self._made[tensor] = (known.get(name, _UNKNOWN), node.label)

    def _check_reads(self) -> None:
        for tensor, spec, label in self._read:
            if tensor in self._made:
                self._check_fit(self._made[tensor][0], spec, f"tensor {tensor!r}", label)
            elif self._declared is not None:
                self._problem(label, f"tensor {tensor!r} is made by no step and is no input of the ensemble")
        for node in self._nodes:
            for tensor in node.when.tensors if node.when is not None else ():
                if tensor not in self._made and tensor not in {name for name, _, _ in self._read}:
                    self._problem(node.label, f"its condition reads tensor {tensor!r}, which nothing makes")

    def _check_outputs(self, signature: Signature) -> None:
        for spec in signature.outputs:
            if spec.name not in self._made:
                self._problem("the ensemble", f"no step makes its output {spec.name!r}")
            else:
                self._check_fit(self._made[spec.name][0], spec, f"output {spec.name!r}", "the ensemble")

    def _check_fit(self, made: TensorSpec, read: TensorSpec, what: str, label: str) -> None:
        if made is _UNKNOWN or read is _UNKNOWN:
            return
        same_rank = len(made.shape) == len(read.shape)
        fits = same_rank and all(
            one is None or other is None or one == other for one, other in zip(made.shape, read.shape, strict=True)
        )
        if made.dtype is not read.dtype or not fits:
            self._problem(
                label, f"{what} is {made.dtype}{shape_text(made.shape)}, {read.name!r} is {read.dtype}{shape_text(read.shape)}"
            )

    def _derived(self) -> Signature:
        """The tensors that no step makes, and those that none reads."""
        read = {tensor for tensor, _, _ in self._read}
        inputs: dict[str, TensorSpec] = {}
        for tensor, spec, label in self._read:
            if tensor not in self._made:
                first = inputs.setdefault(tensor, _named(spec, tensor))
                self._check_fit(first, spec, f"tensor {tensor!r}", label)
        outputs = [_named(spec, tensor) for tensor, (spec, _) in self._made.items() if tensor not in read]
        return Signature(tuple(inputs.values()), tuple(outputs))

    def _ordered(self) -> list[Node]:
        makers = {tensor: node for node in self._nodes for tensor in node.step.outputs.values()}
        waiting, done = list(self._nodes), list[Node]()
        while waiting:
            ready = [node for node in waiting if all(makers[need] in done for need in node.needs if need in makers)]
            if not ready:
                self._problem("the ensemble", f"a cycle: {', '.join(node.label for node in waiting)} wait for each other")
                return done
            done += ready
            waiting = [node for node in waiting if node not in ready]
        return done

    def _problem(self, where: str, what: str) -> None:
        problem = f"{self._name}: {where}: {what}"
        if problem not in self._problems:
            self._problems.append(problem)


def _named(spec: TensorSpec, name: str) -> TensorSpec:
    return TensorSpec(name, spec.dtype, spec.shape)


_UNKNOWN = TensorSpec("", DataType.FP32, ())
"""Stands where a step is wrong already; compared by identity."""
