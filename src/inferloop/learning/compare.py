"""Champion and challenger on the same rows: the frozen hold-out and recent labeled rows."""

from __future__ import annotations

import numpy as np

from inferloop.core.bundle import HOLDOUT, Bundle
from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidBundle
from inferloop.core.target import Target
from inferloop.evaluation.calibration import softmax
from inferloop.evaluation.sessions import opened, run_padded
from inferloop.learning.guard import Answers
from inferloop.learning.head_model import backbone_digest, declared_head, read_head
from inferloop.learning.rows import EmbeddedRows


def holdout_answers(champion: Bundle, challenger: Bundle, *, target: Target | None = None) -> Answers:
    """What both say about the champion's frozen hold-out; no rows if its bundle carries none.

    Where they share their backbone, both heads read the same embedding: the stored one, else one run of the engine.
    Otherwise both are run.
    """
    if HOLDOUT not in champion.manifest.files:
        nothing = np.zeros((0, len(champion.labels)))
        return Answers(np.zeros(0, np.int64), nothing, nothing)
    stored = champion.arrays(HOLDOUT)
    inputs = {key.removeprefix("inputs/"): array for key, array in stored.items() if key.startswith("inputs/")}
    truth = stored.get("label")
    if truth is None or not inputs or any(len(array) != len(truth) for array in stored.values()):
        raise InvalidBundle(f"bundle {champion.path}: {HOLDOUT} does not hold inputs/NAME and label of the same length")
    if backbone_digest(champion) == backbone_digest(challenger):
        embedding = stored.get("embedding")
        if embedding is None:
            embedding = _output(champion, inputs, declared_head(champion).embedding, target)
        before, after = (read_head(bundle).logits(embedding) for bundle in (champion, challenger))
    else:
        before, after = (_output(bundle, inputs, declared_head(bundle).output, target) for bundle in (champion, challenger))
    return Answers(truth.astype(np.int64), softmax(before), softmax(after))


def recent_answers(champion: Bundle, challenger: Bundle, rows: EmbeddedRows) -> Answers:
    """What both say about embedded rows; they must share their backbone."""
    first, second = read_head(champion), read_head(challenger)
    return Answers(rows.label, softmax_rows(first.logits(rows.embedding)), softmax_rows(second.logits(rows.embedding)))


def softmax_rows(logits: Array) -> Array:
    """`softmax` that also takes no rows at all."""
    return softmax(logits) if len(logits) else np.zeros(logits.shape)


def _output(bundle: Bundle, inputs: dict[str, Array], name: str, target: Target | None) -> Array:
    with opened(bundle, target) as session:
        return run_padded(session, inputs, [name])[name]
