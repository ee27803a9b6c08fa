"""The recipe for images: a compact convolutional network, trained from scratch on augmented pictures.

PNG, JPEG, ... -> decode, resize, standardize -> conv blocks -> flatten -> embedding -> head
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inferloop.core.datatypes import Array, DataType
from inferloop.core.signature import TensorSpec
from inferloop.core.transform import FieldKind, FieldTransform, Step
from inferloop.data.transforms.fields import compile_field
from inferloop.training.augment import augment
from inferloop.training.config import ImageRecipe, TrainConfig
from inferloop.training.corpus import Corpus, Rows
from inferloop.training.loop import Validation
from inferloop.training.network import HeadLayer, Network, Trained
from inferloop.training.objective import Objective, judge, objective_of, shuffled, step_type
from inferloop.training.watch import Watch

EPOCHS, BATCH, RATE = 10, 64, 3e-3
_WIDEST_MAP = 8
_JUDGE_BATCH = 256


class Block(nn.Module):
    """3x3 convolution, batch norm, ReLU; with a second, residual one behind it."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(narrow, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU())

    def forward(self, pictures: Tensor) -> Tensor:
        """[N, narrow, H, W] -> [N, wide, H, W]."""
        first: Tensor = self.first(pictures)
        out: Tensor = first + self.second(first)
        return out


class ImageNetwork(Network):
    """Standardized pictures [N, C, size, size] -> (embedding, logits).

    The embedding has a mean squared length of 1 on the validation rows, as that of every recipe.
    """

    scale: Tensor

    def __init__(self, recipe: ImageRecipe, classes: int) -> None:
        super().__init__()
        first, colors = recipe.channels, len(recipe.mode)
        self.stem = nn.Sequential(
            nn.Conv2d(colors, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.body = nn.Sequential(Block(first, 2 * first), nn.MaxPool2d(2), Block(2 * first, 4 * first))
        side = recipe.size // 4
        stride = max(2, -(-side // _WIDEST_MAP))
        pooled = side // stride
        self.shrink = nn.MaxPool2d(stride)
        self.squeeze = nn.Sequential(
            nn.Flatten(), nn.Dropout(recipe.dropout), nn.Linear(4 * first * pooled**2, recipe.width), nn.ReLU()
        )
        self.head = HeadLayer(recipe.width, classes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """See `Network`."""
        embedding = self.squeeze(self.shrink(self.body(self.stem(image)))) * self.scale
        return embedding, self.head(embedding)

    def rescale(self, embedding: Array) -> Array:
        """Give the embedding its standard length without changing the logits; returns the given rows rescaled."""
        factor = 1.0 / max(float(np.sqrt((embedding**2).sum(axis=1).mean())), 1e-6)
        with torch.no_grad():
            self.scale.mul_(factor)
            self.head.weight.div_(factor)
        return embedding * np.float32(factor)


class ImageLearner:
    """Trains an image network. See `loop.Learner`.

    Args:
        pictures: float32 [N, C, H, W] in 0..1, not standardized yet.
        validation: the same, and labels.
    """

    def __init__(
        self,
        network: ImageNetwork,
        pictures: Tensor,
        *,
        objective: Objective,
        validation: tuple[Tensor, Array],
        config: TrainConfig,
    ) -> None:
        self.network: ImageNetwork = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's overloads lack it
        self._pictures, self._objective, self._validation = pictures, objective, validation
        self._batch, self._augment = config.fit.batch or BATCH, config.image.augment
        self._dtype = step_type(config.precision)

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """See `Learner.groups`."""
        return [{"params": list(self.network.parameters()), "lr": lr}]

    def batches(self, random: torch.Generator) -> list[Tensor]:
        """See `Learner.batches`."""
        return shuffled(len(self._pictures), self._batch, random)

    def loss(self, rows: Tensor) -> Tensor:
        """See `Learner.loss`."""
        pictures = standardize(augment(self._pictures[rows], self._augment)).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._dtype is torch.bfloat16):
            _, logits = self.network(pictures)
        return self._objective(logits.float(), rows)

    def validate(self) -> Validation:
        """See `Learner.validate`."""
        pictures, labels = self._validation
        return judge(run(self.network, standardize(pictures))[1], labels)


def train_images(corpus: Corpus, config: TrainConfig, watch: Watch) -> Trained:
    """Train a compact network from scratch.

    Raises:
        InvalidInput: a row is no image; names it.
    """
    recipe = config.image
    torch.manual_seed(config.seed)
    train, held = _pictures(corpus.train, recipe, watch), _pictures(corpus.validation, recipe, watch)
    network = ImageNetwork(recipe, corpus.classes)
    objective = objective_of(corpus, config)
    learner = ImageLearner(network, train, objective=objective, validation=(held, corpus.validation.labels), config=config)
    history = watch.fit(learner, epochs=config.fit.epochs or EPOCHS, lr=config.fit.lr or RATE)
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's overloads lack it
    embedding, _ = run(network, standardize(held))
    return Trained(
        network=network,
        inputs=(TensorSpec("image", DataType.FP32, (None, len(recipe.mode), recipe.size, recipe.size)),),
        fields=(FieldTransform("image", FieldKind.IMAGE, (*_steps(recipe), Step("standardize"), _LAYOUT), ("image",)),),
        embedding=network.rescale(embedding),
        labels=corpus.validation.labels,
        validation=len(corpus.validation),
        history=history,
        facts={"weights": sum(weight.numel() for weight in network.parameters())},
    )


def run(network: Network, pictures: Tensor) -> tuple[Array, Array]:
    """Embedding and logits of standardized pictures, float32; the network is in evaluation mode."""
    parts = []
    with torch.no_grad():
        for part in torch.split(pictures, _JUDGE_BATCH):
            embedding, logits = network(part)
            parts.append((embedding.numpy(), logits.numpy()))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def standardize(pictures: Tensor) -> Tensor:
    """Each picture to mean 0 and standard deviation 1, as the operation `standardize` does."""
    size = pictures[0].numel()
    mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
    spread = pictures.std(dim=(1, 2, 3), keepdim=True, correction=0).clamp(min=size**-0.5)
    return (pictures - mean) / spread


_LAYOUT = Step("layout", {"order": "CHW"})


def _steps(recipe: ImageRecipe) -> tuple[Step, ...]:
    size = {"width": recipe.size, "height": recipe.size}
    return Step("decode", {"mode": recipe.mode}), Step("resize", size), Step("to_float")


def _pictures(rows: Rows, recipe: ImageRecipe, watch: Watch) -> Tensor:
    """Decode with the very steps that serving runs, up to the point where augmentation goes in."""
    transform = FieldTransform("image", FieldKind.IMAGE, (*_steps(recipe), _LAYOUT), ("image",))
    compiled = compile_field(transform, _no_assets)
    pictures = np.empty((len(rows), len(recipe.mode), recipe.size, recipe.size), np.float32)
    for index, sample in enumerate(rows.samples):
        (pictures[index],) = compiled.apply(sample.fields)
        if index % _JUDGE_BATCH == 0:
            watch.stage("decoding", index, len(rows))
    return torch.from_numpy(pictures)


def _no_assets(name: str) -> Any:
    raise KeyError(name)
