"""`inferloop predict`: one-off answers, from raw files or text to labels."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from inferloop.core.errors import InferloopError, InvalidConfig, InvalidInput, NotFound, StorageError

if TYPE_CHECKING:
    from inferloop.core.sample import Sample
    from inferloop.core.transform import FieldKind
    from inferloop.prediction.prediction import Prediction
    from inferloop.prediction.predictor import Predictor

_STDIN = "-"


@click.command()
@click.argument("model")
@click.argument("inputs", metavar="[INPUT...]", nargs=-1)
@click.option("--text", "texts", multiple=True, help="Text to answer, instead of a file; may be given several times.")
@click.option("--target", default="onnxruntime:cpu:f32@1", show_default=True, help="Where MODEL is loaded.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def command(model: str, inputs: tuple[str, ...], texts: tuple[str, ...], target: str, as_json: bool) -> None:
    r"""Answer INPUTs with MODEL: files (an image, a WAV recording, text, JSON, an array in .npy) or `-` for standard input.

    \b
    Examples:
      inferloop predict digits@champion seven.png
      inferloop predict refunds@champion --text "my flight was cancelled"
    """
    if not inputs and not texts:
        raise click.UsageError("nothing to answer: name a file, - or --text")
    from inferloop.prediction.loading import load

    with load(model, target=target) as predictor:
        _check_takes_samples(predictor)
        problems = []
        for name, answer in _answers(predictor, inputs, texts):
            if isinstance(answer, InferloopError):
                problems.append(answer)
            else:
                click.echo(_json(name, answer) if as_json else _line(name, answer, alone=len(inputs) + len(texts) == 1))
    if problems:
        raise _together(problems)


def _check_takes_samples(predictor: Predictor) -> None:
    if not predictor.fields:
        takes = ", ".join(map(str, predictor.signature.inputs))
        raise InvalidInput(f"model {predictor.name!r} declares no transforms, so it takes no raw input", hint=f"it takes {takes}")


def _answers(
    predictor: Predictor, inputs: tuple[str, ...], texts: tuple[str, ...]
) -> Iterator[tuple[str, Prediction | InferloopError]]:
    """The answer to every input, or why it has none, with the name that it is shown under: a bad one spoils no other."""
    for name, is_text in (*((name, False) for name in inputs), *((text, True) for text in texts)):
        try:
            sample = _sample(name, predictor.fields, is_text=is_text)
        except (InvalidInput, NotFound, StorageError) as error:  # names the file
            yield name, error
            continue
        try:
            yield name, predictor.predict(sample)
        except InvalidInput as error:
            yield name, type(error)(f"{name}: {error.message}", hint=error.hint)


def _sample(name: str, fields: Mapping[str, FieldKind], *, is_text: bool) -> Sample:
    from inferloop.data.codecs.raw import sample_from_body, sample_from_file

    if is_text:
        return sample_from_body(os.fsencode(name), "text/plain", fields)
    if name == _STDIN:
        if sys.stdin is None:
            raise InvalidInput("standard input is closed", hint="name a file instead of -")
        return sample_from_body(sys.stdin.buffer.read(), "", fields)
    return sample_from_file(name, fields)


def _together(problems: list[InferloopError]) -> InferloopError:
    """One error for all inputs without an answer."""
    if len(problems) == 1:
        return problems[0]
    return InvalidConfig([problem.message for problem in problems], hint=problems[0].hint)


def _line(name: str, answer: Prediction, *, alone: bool) -> str:
    outputs = "  ".join(f"{key} {array.ravel()[:8].tolist()}" for key, array in answer.outputs.items())
    said = f"{answer.label}  {answer.score:.4f}" if answer.label else outputs
    return said if alone else f"{name}  {said}"


def _json(name: str, answer: Prediction) -> str:
    content: dict[str, object] = {"input": name, "model": answer.model, "version": answer.version}
    if answer.label:
        content |= {"label": answer.label, "score": answer.score, "scores": answer.scores}
    else:
        content["outputs"] = {key: array.ravel().tolist() for key, array in answer.outputs.items()}
    return json.dumps(content)
