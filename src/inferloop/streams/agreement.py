"""Whether a pipeline file and the model that it names agree: fields and labels."""

from __future__ import annotations

from collections.abc import Iterator

from inferloop.core.bundle import Bundle
from inferloop.core.errors import InvalidConfig
from inferloop.streams.loading import PipelineSpec


def check_agreement(spec: PipelineSpec, bundle: Bundle) -> None:
    """Compare the file with the Bundle that would answer now.

    Raises:
        InvalidConfig: a field that the model needs has no message field, or a rule names a label that it does not have.
    """
    problems = list(_problems(spec, bundle))
    if problems:
        raise InvalidConfig([f"{spec.path}: {problem}" for problem in problems], hint=f"model {bundle.name}:{bundle.version}")


def _problems(spec: PipelineSpec, bundle: Bundle) -> Iterator[str]:
    needed = bundle.manifest.transforms.fields
    known = ", ".join(sorted(needed)) or "none"
    for name in spec.model.inputs:
        if name not in needed:
            yield f"model.inputs.{name}: the model has no such field; known: {known}"
    for name in needed:
        if name not in spec.model.inputs and name not in spec.kinds:
            yield f"model.inputs: the model needs the field {name!r}, no message field has that name"
        elif spec.model.inputs and name not in spec.model.inputs:
            yield f"model.inputs: the model needs the field {name!r}"
    labels = bundle.labels
    for index, rule in enumerate(spec.rules):
        if rule.label is not None and rule.label not in labels:
            yield f"rules.{index}.label: the model has no label {rule.label!r}; known: {', '.join(labels) or 'none'}"
