"""What a recipe hands over: a network with a linear head, and everything that its Bundle must say.

inputs -> features -> embedding [N, D] -> @ weight + bias -> logits [N, C]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inferloop.core.datatypes import Array
from inferloop.core.manifest import Head
from inferloop.core.signature import TensorSpec
from inferloop.core.transform import FieldTransform
from inferloop.evaluation.head import LinearHead
from inferloop.training.loop import History

EMBEDDING = "embedding"
LOGITS = "logits"
HEAD = Head(embedding=EMBEDDING, output=LOGITS, weight="head.weight", bias="head.bias")


class HeadLayer(nn.Module):
    """The last layer; its weight is stored [D, C], the way it stands in the graph."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, classes))
        self.bias = nn.Parameter(torch.zeros(classes))
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, embedding: Tensor) -> Tensor:
        """Embedding [N, D] -> logits [N, C]."""
        return embedding @ self.weight + self.bias

    def take(self, head: LinearHead) -> None:
        """Copy a fitted head."""
        with torch.no_grad():
            self.weight.copy_(torch.as_tensor(head.weight, dtype=torch.float32))
            self.bias.copy_(torch.as_tensor(head.bias, dtype=torch.float32))

    def fitted(self) -> LinearHead:
        """The head in float64."""
        return LinearHead(
            self.weight.detach().cpu().numpy().astype(np.float64), self.bias.detach().cpu().numpy().astype(np.float64)
        )


class Network(nn.Module):
    """A network that can be exported: `forward` takes the inputs of the Signature in order, returns (embedding, logits)."""

    head: HeadLayer


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A trained network before it is calibrated and exported.

    Attributes:
        network: in evaluation mode, fp32.
        inputs: the tensors it takes, in the order of `forward`.
        fields: how a Sample becomes these tensors.
        assets: files that the transforms need, by their path in the Bundle.
        embedding: float32 [N, D] of rows that no weight below the head was trained on.
        labels: int64 [N] of these rows.
        validation: how many of them, the first ones, the head was not fitted on either: they calibrate.
        logits: of these first rows, where the head was refitted after they had judged it; None to compute them.
        facts: what was chosen and measured on the way.
        notes: sentences for the reader of the Report.
    """

    network: Network
    inputs: tuple[TensorSpec, ...]
    fields: tuple[FieldTransform, ...]
    embedding: Array
    labels: Array
    validation: int
    logits: Array | None = None
    assets: Mapping[str, bytes] = field(default_factory=dict)
    history: History | None = None
    license: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
