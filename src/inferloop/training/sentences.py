"""The text network on a MiniLM encoder, and the learner that tunes its upper layers on a cache of the lower ones.

    input_ids, attention_mask -> encoder -> upper mean, lower mean ─┐
    ngram_ids, ngram_counts -> n-gram scores (optional) ────────────┴─ embedding -> head -> logits

The mean of the layer below the tuned ones goes along: tuning makes the upper mean forget whatever the labels did not need (the
topic, the addressee), and a head that is refitted on new topics needs just that. Its weights are zero at first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from inferloop.core.datatypes import Array
from inferloop.evaluation.head import LinearHead
from inferloop.training.loop import Validation
from inferloop.training.minilm import WIDTH, Encoder, pool
from inferloop.training.network import HeadLayer, Network
from inferloop.training.ngrams import NgramFeatures
from inferloop.training.objective import Objective, bucketed, by_length, judge

_CACHE_BATCH = 64
_HEAD_RATE = 10.0


class Means(NamedTuple):
    """Mean hidden states of N texts, float32 [N, WIDTH]: of the last layer and of the one at the cut."""

    upper: Array
    lower: Array


class Hidden:
    """The frozen lower part's output for every text, computed once.

    Attributes:
        lengths: int64 [N], tokens of each text.
    """

    def __init__(self, states: list[Tensor]) -> None:
        self.states = states
        self.lengths = torch.tensor([len(state) for state in states])

    @classmethod
    def compute(cls, encoder: Encoder, tokens: Sequence[Array], *, dtype: torch.dtype, done: Callable[[int], None]) -> Hidden:
        """Run the lower layers over all texts; `done` hears how many are through."""
        lower = copy.deepcopy(encoder).to(dtype)
        states: list[Tensor] = [torch.empty(0)] * len(tokens)
        count = 0
        for rows in by_length(torch.tensor([len(row) for row in tokens]), _CACHE_BATCH):
            ids, mask = padded([tokens[int(row)] for row in rows])
            with torch.no_grad():
                hidden = lower.lower(ids, mask)
            for row, state in zip(rows, hidden, strict=True):
                states[int(row)] = state[: len(tokens[int(row)])].clone()
            count += len(rows)
            done(count)
        return cls(states)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden [N, T, WIDTH] and mask [N, T] of some rows, padded to the longest of them."""
        states = [self.states[int(row)] for row in rows]
        mask = (torch.arange(int(self.lengths[rows].max())) < self.lengths[rows][:, None]).long()
        return pad_sequence(states, batch_first=True), mask

    def means(self, encoder: Encoder, rows: Tensor, *, dtype: torch.dtype = torch.float32) -> Means:
        """Both means of some rows; `encoder` in evaluation mode."""
        upper, lower = np.empty((len(rows), WIDTH), np.float32), np.empty((len(rows), WIDTH), np.float32)
        for places in by_length(self.lengths[rows], _CACHE_BATCH):
            hidden, mask = self.batch(rows[places])
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
                above = encoder.upper(hidden if dtype is torch.bfloat16 else hidden.float(), mask)
            upper[places.numpy()] = above.float().numpy()
            lower[places.numpy()] = pool(hidden.float(), mask).numpy()
        return Means(upper, lower)


class Tuned(nn.Module):
    """What learns: the layers above the cut and the head."""

    def __init__(self, encoder: Encoder, head: HeadLayer) -> None:
        super().__init__()
        self.layers = encoder.tuned
        self.head = head


class SentenceLearner:
    """Tunes the layers above the cut. See `loop.Learner`.

    Args:
        encoder: with the cut where learning begins.
        hidden: the lower part's output for training and validation rows.
        train: indices into `hidden`; row i of `objective` is `train[i]`.
        validation: indices into `hidden`, and their labels.
    """

    def __init__(
        self,
        encoder: Encoder,
        hidden: Hidden,
        *,
        head: HeadLayer,
        objective: Objective,
        train: Tensor,
        validation: tuple[Tensor, Array],
        batch: int,
        dropout: float,
        dtype: torch.dtype,
    ) -> None:
        self.network = Tuned(encoder, head)
        self._encoder, self._hidden, self._objective = encoder, hidden, objective
        self._train, self._validation = train, validation
        self._batch, self._dropout, self._dtype = batch, dropout, dtype

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """See `Learner.groups`: the head learns ten times as fast."""
        layers, head = self.network.layers.parameters(), self.network.head.parameters()
        return [{"params": list(layers), "lr": lr}, {"params": list(head), "lr": lr * _HEAD_RATE}]

    def batches(self, random: torch.Generator) -> list[Tensor]:
        """See `Learner.batches`."""
        return bucketed(self._hidden.lengths[self._train], self._batch, random)

    def loss(self, rows: Tensor) -> Tensor:
        """See `Learner.loss`."""
        hidden, mask = self._hidden.batch(self._train[rows])
        with torch.autocast("cpu", torch.bfloat16, enabled=self._dtype is torch.bfloat16):
            mean = self._encoder.upper(hidden, mask)
        mean = functional.dropout(mean.float(), self._dropout)
        return self._objective(self.network.head(mean), rows)

    def validate(self) -> Validation:
        """See `Learner.validate`."""
        rows, labels = self._validation
        means = self._hidden.means(self._encoder, rows, dtype=self._dtype)
        return judge(self.network.head.fitted().logits(means.upper), labels)


class SentenceNetwork(Network):
    """The network as it is exported.

    Args:
        encoder: tuned or not.
        head: on the whole embedding.
        tuned: whether the embedding is the centered and scaled pair of means; else the upper mean at unit length.
        ngrams: adds its scores as further columns.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, encoder: Encoder, head: HeadLayer, *, tuned: bool, ngrams: NgramFeatures | None = None) -> None:
        super().__init__()
        self.encoder, self.head, self.ngrams, self.tuned = encoder, head, ngrams, tuned
        self.register_buffer("center", torch.zeros(2 * WIDTH))
        self.register_buffer("scale", torch.ones(2 * WIDTH))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        ngram_ids: Tensor | None = None,
        ngram_counts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Network`: ids and mask int64 [N, T]; n-gram ids int64 and counts float32 [N, K]."""
        hidden = self.encoder.lower(input_ids, attention_mask)
        upper = self.encoder.upper(hidden, attention_mask)
        embedding = self.embed(upper, pool(hidden, attention_mask) if self.tuned else upper)
        if self.ngrams is not None and ngram_ids is not None and ngram_counts is not None:
            embedding = torch.cat([embedding, self.ngrams(ngram_ids, ngram_counts)], dim=1)
        return embedding, self.head(embedding)

    def embed(self, upper: Tensor, lower: Tensor) -> Tensor:
        """Both means -> the embedding without n-gram scores."""
        if not self.tuned:
            return functional.normalize(upper)
        return (torch.cat([upper, lower], dim=1) - self.center) * self.scale

    def standardize(self, means: Means, head: LinearHead) -> LinearHead:
        """Choose center and scale so that these rows have mean 0, equal spread and a mean squared length of 1.

        A head that is refitted then meets the same scale in every bundle, and one grid of C fits all.

        Args:
            means: of rows that the encoder was not tuned on.
            head: on the plain upper mean.

        Returns:
            The same head on the new embedding; the lower mean has weight 0.
        """
        center = np.concatenate([means.upper.mean(0), means.lower.mean(0)])
        spread = np.concatenate([np.full(WIDTH, means.upper.std(0).mean()), means.lower.std(0)])
        scale = 1.0 / np.maximum(spread, 1e-6) / np.sqrt(2 * WIDTH)
        self.center.copy_(torch.from_numpy(center))
        self.scale.copy_(torch.from_numpy(scale))
        weight = np.vstack([head.weight / scale[:WIDTH, None], np.zeros_like(head.weight)])
        return LinearHead(weight, head.bias + center[:WIDTH] @ head.weight)


def padded(tokens: Sequence[Array]) -> tuple[Tensor, Tensor]:
    """Ids and mask int64 [N, T], padded with zeros to the longest text."""
    lengths = torch.tensor([len(row) for row in tokens])
    ids = pad_sequence([torch.from_numpy(row) for row in tokens], batch_first=True)
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()
