"""What callers see of a model whose server fills in inputs, keeps outputs or takes answers apart."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from inferloop.core.bundle import Bundle
from inferloop.core.errors import InvalidBundle, Unsupported
from inferloop.core.protocols import Session
from inferloop.core.signature import Signature, TensorSpec
from inferloop.prediction.sequence.contract import Contract
from inferloop.prediction.settings import ModelSettings


class UnbatchedSignature(Signature):
    """A Signature of free first axes that are no rows: the tensors that callers do not see have none."""

    @property
    def batched(self) -> bool:
        """False: every request runs alone."""
        return False


def without(bundle: Bundle, inputs: Collection[str], outputs: Collection[str]) -> Bundle:
    """The Bundle without some tensors: those are between the server and the model."""
    signature = bundle.signature
    taken = tuple(spec for spec in signature.inputs if spec.name not in inputs)
    given = tuple(spec for spec in signature.outputs if spec.name not in outputs)
    return _with(bundle, Signature(taken, given))


def sliced(bundle: Bundle) -> Bundle:
    """The Bundle with outputs as one slice of their first axis beside the batch axis.

    Raises:
        InvalidBundle: an output has no such axis.
    """
    signature = bundle.signature
    axis = split_axis(signature)
    return _with(bundle, Signature(signature.inputs, tuple(_slice(spec, axis) for spec in signature.outputs)))


def split_axis(signature: Signature) -> int:
    """The axis of the outputs along which their answers lie."""
    return 1 if signature.batched else 0


def _slice(spec: TensorSpec, axis: int) -> TensorSpec:
    if len(spec.shape) <= axis:
        raise InvalidBundle(f"output {spec} of a decoupled model has no axis {axis} to take its answers from")
    return replace(spec, shape=(*spec.shape[:axis], *spec.shape[axis + 1 :]))


def _with(bundle: Bundle, signature: Signature) -> Bundle:
    if signature.batched and not bundle.signature.batched:
        signature = UnbatchedSignature(signature.inputs, signature.outputs)
    return replace(bundle, manifest=replace(bundle.manifest, signature=signature))


def streams(session: Session) -> bool:
    """Whether the session gives its answers one by one itself."""
    return callable(getattr(session, "stream", None))


def public_bundle(bundle: Bundle, session: Session, settings: ModelSettings, contract: Contract | None) -> Bundle:
    """What callers see of the model."""
    if contract is not None and settings.decoupled:
        raise Unsupported(f"model {bundle.name!r} is said to keep state and to be decoupled", hint="choose one of them")
    if contract is not None:
        return without(bundle, contract.inputs, contract.outputs)
    return sliced(bundle) if settings.decoupled and not streams(session) else bundle
