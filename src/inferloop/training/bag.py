"""The recipe for text without a backbone: a small network on hashed n-grams, trained from scratch.

ngrams -> weighted sum of a table's rows -> norm -> ReLU layer -> embedding -> head
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from inferloop.core.datatypes import Array, DataType
from inferloop.core.signature import TensorSpec
from inferloop.core.transform import FieldKind, FieldTransform, Step
from inferloop.data.transforms.text import NgramOptions, Ngrams, ngram_counts, pad
from inferloop.training.config import TrainConfig
from inferloop.training.corpus import Corpus
from inferloop.training.loop import Validation
from inferloop.training.network import HeadLayer, Network, Trained
from inferloop.training.ngrams import NgramFeatures, inverse_frequency
from inferloop.training.objective import Objective, bucketed, by_length, judge, objective_of
from inferloop.training.watch import Watch

EPOCHS, BATCH, RATE = 8, 64, 5e-3
_MULTIPLE = 64
_JUDGE_BATCH = 256


class BagNetwork(Network):
    """N-gram ids int64 and counts float32 [N, K] -> (embedding of unit length, logits)."""

    def __init__(self, idf: Array, width: int, classes: int, *, dropout: float) -> None:
        super().__init__()
        self.features = NgramFeatures(idf, width)
        nn.init.normal_(self.features.table, std=0.1)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, width))
        self.head = HeadLayer(width, classes)

    def forward(self, ngram_ids: Tensor, ngram_counts: Tensor) -> tuple[Tensor, Tensor]:
        """See `Network`."""
        bag = self.features(ngram_ids, ngram_counts)
        embedding = functional.normalize(bag + functional.relu(self.mix(bag)), eps=1e-6)
        return embedding, self.head(embedding)


class BagLearner:
    """Trains a `BagNetwork`. See `loop.Learner`."""

    def __init__(
        self,
        network: BagNetwork,
        rows: Sequence[Ngrams],
        *,
        objective: Objective,
        validation: tuple[Sequence[Ngrams], Array],
        batch: int,
    ) -> None:
        self.network: BagNetwork = network
        self._rows, self._objective, self._validation, self._batch = rows, objective, validation, batch
        self._lengths = torch.tensor([len(row.ids) for row in rows])

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """See `Learner.groups`: the head's logits grow from an embedding of unit length, so it learns ten times as fast."""
        head = list(self.network.head.parameters())
        body = [weight for name, weight in self.network.named_parameters() if not name.startswith("head.")]
        return [{"params": body, "lr": lr}, {"params": head, "lr": lr * 10}]

    def batches(self, random: torch.Generator) -> list[Tensor]:
        """See `Learner.batches`."""
        return bucketed(self._lengths, self._batch, random)

    def loss(self, rows: Tensor) -> Tensor:
        """See `Learner.loss`."""
        _, logits = self.network(*collate([self._rows[int(row)] for row in rows]))
        return self._objective(logits, rows)

    def validate(self) -> Validation:
        """See `Learner.validate`."""
        rows, labels = self._validation
        return judge(run(self.network, rows)[1], labels)


def train_bag(corpus: Corpus, config: TrainConfig, watch: Watch) -> Trained:
    """Train a small network on n-grams from scratch."""
    recipe, fitting = config.text, config.fit
    options = NgramOptions(buckets=recipe.buckets, pad_multiple=_MULTIPLE)
    watch.stage("n-grams", 0, 1)
    train = [ngram_counts(text, options) for text in corpus.train.texts]
    held = [ngram_counts(text, options) for text in corpus.validation.texts]
    torch.manual_seed(config.seed)
    network = BagNetwork(inverse_frequency(train, recipe.buckets), recipe.width, corpus.classes, dropout=recipe.dropout)
    objective = objective_of(corpus, config)
    validation = (held, corpus.validation.labels)
    learner = BagLearner(network, train, objective=objective, validation=validation, batch=fitting.batch or BATCH)
    history = watch.fit(learner, epochs=fitting.epochs or EPOCHS, lr=fitting.lr or RATE)
    embedding, logits = run(network, held)
    step = Step("ngrams", {"buckets": recipe.buckets, "pad_multiple": _MULTIPLE})
    return Trained(
        network=network,
        inputs=(TensorSpec("ngram_ids", DataType.INT64, (None, None)), TensorSpec("ngram_counts", DataType.FP32, (None, None))),
        fields=(FieldTransform("text", FieldKind.TEXT, (step,), ("ngram_ids", "ngram_counts")),),
        embedding=embedding,
        labels=corpus.validation.labels,
        validation=len(held),
        logits=logits,
        history=history,
        facts={"weights": sum(weight.numel() for weight in network.parameters())},
    )


def run(network: Network, rows: Sequence[Ngrams]) -> tuple[Array, Array]:
    """Embedding and logits of texts, float32, in their order; the network is in evaluation mode."""
    order = by_length(torch.tensor([len(row.ids) for row in rows]), _JUDGE_BATCH)
    parts = []
    with torch.no_grad():
        for places in order:
            embedding, logits = network(*collate([rows[int(place)] for place in places]))
            parts.append((embedding.numpy(), logits.numpy()))
    back = torch.argsort(torch.cat(order)).numpy()
    return np.concatenate([part[0] for part in parts])[back], np.concatenate([part[1] for part in parts])[back]


def collate(rows: Sequence[Ngrams]) -> tuple[Tensor, Tensor]:
    """Ids int64 and counts float32 [N, K], padded with zeros to the longest text."""
    length = max(1, *(len(row.ids) for row in rows))
    ids = np.stack([pad(row.ids, length) for row in rows])
    counts = np.stack([pad(row.counts, length) for row in rows])
    return torch.from_numpy(ids), torch.from_numpy(counts)
