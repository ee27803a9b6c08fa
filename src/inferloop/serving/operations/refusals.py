"""Says why tensors do not fit a model in the words that clients of the protocol know, and look for."""

from __future__ import annotations

from inferloop.core.datatypes import DataType, Tensors
from inferloop.core.errors import InferloopError, InvalidInput, NotFound, Unavailable
from inferloop.core.signature import Signature, TensorSpec
from inferloop.prediction.router import Router

_NO_ID = "<id_unknown>"


def explained(
    error: InferloopError,
    router: Router,
    model: str,
    version: int | None,
    *,
    tensors: Tensors,
    id: str = "",  # noqa: A002  # the field's word
) -> InferloopError:
    """The error to answer with; only ever called where one was raised, so that good requests do not pay for it.

    Args:
        error: what the Router raised; stays as it is where the protocol's clients know no words for it.
        router: where it was raised.
        model: as the client named it.
        version: as the client named it.
        tensors: of the request.
        id: the client's id of the request.
    """
    if isinstance(error, NotFound):
        return unknown_model(error, router, model, version)
    try:
        servable = router.predictor(model, version=version)
    except (NotFound, Unavailable):  # it left meanwhile
        return error
    limits = getattr(servable, "limits", None)
    most = limits.max_batch if limits is not None and servable.signature.batched else 0
    text = misfit(servable.signature, tensors, model, most)
    if not text:
        return error
    return InvalidInput(f"[request id: {id or _NO_ID}] {text}", hint=error.hint or error.message)


def unknown_model(error: NotFound, router: Router, model: str, version: int | None) -> NotFound:
    """`NotFound` for a model that is not open; says whether it is unknown or unloaded."""
    if version is not None and _is_open(router, model):
        text = f"Request for unknown model: '{model}' version {version} is not found"
    elif any(line.name == model for line in router.index()):
        text = f"Request for unknown model: '{model}' has no available versions"
    else:
        text = f"Request for unknown model: '{model}' is not found"
    return NotFound(text, hint=error.hint)


def misfit(signature: Signature, tensors: Tensors, model: str, max_batch: int) -> str:
    """What is wrong with the tensors; empty if nothing is. Names, then datatypes, then shapes, then the batch size.

    Args:
        signature: of the model.
        tensors: of the request.
        model: its name, for the text.
        max_batch: rows of one request; 0 for a model without a batch axis.
    """
    missing = [spec.name for spec in signature.inputs if spec.name not in tensors]
    if missing or len(tensors) != len(signature.inputs):
        return _counts(signature, tensors, missing, model)
    for spec in signature.inputs:
        array = tensors[spec.name]
        datatype = DataType.of(array).value
        if datatype != spec.dtype.value:
            return f"inference input '{spec.name}' data-type is '{datatype}', but model '{model}' expects '{spec.dtype}'"
        if not spec.fits(array):
            return (
                f"unexpected shape for input '{spec.name}' for model '{model}'. "
                f"Expected {_expected(spec)}, got {_shape(array.shape)}.{_note(spec, array.ndim)}"
            )
    if max_batch and any(len(array) > max_batch for array in tensors.values()):
        return f"inference request batch-size must be <= {max_batch} for '{model}'"
    return ""


def _is_open(router: Router, model: str) -> bool:
    return any(model in (state.name, state.ref) for state in router.models())


def _counts(signature: Signature, tensors: Tensors, missing: list[str], model: str) -> str:
    unknown = [name for name in tensors if name not in {spec.name for spec in signature.inputs}]
    if unknown and not missing:
        return f"unexpected inference input '{unknown[0]}' for model '{model}'"
    return (
        f"expected {len(signature.inputs)} inputs but got {len(tensors)} inputs for model '{model}'. "
        f"Got input(s) {list(tensors)}, but missing required input(s) {missing}. Please provide all required input(s)."
    )


def _note(spec: TensorSpec, axes: int) -> str:
    return " Axis 0 is the batch." if spec.batched and axes == len(spec.shape) - 1 else ""


def _expected(spec: TensorSpec) -> str:
    return _shape(tuple(-1 if size is None else size for size in spec.shape))


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
