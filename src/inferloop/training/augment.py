"""Random changes of training pictures, in torch: one affine map a picture, then contrast and brightness.

All randomness comes from torch's global state, which a checkpoint keeps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from inferloop.training.config import Augmentation


def augment(pictures: Tensor, amounts: Augmentation) -> Tensor:
    """Change every picture in its own way.

    Args:
        pictures: float32 [N, C, H, W] in 0..1.
        amounts: how much at most; see `config.Augmentation`.
    """
    if amounts.rotate or amounts.scale or amounts.shift or amounts.flip:
        grid = functional.affine_grid(_maps(len(pictures), amounts), list(pictures.shape), align_corners=False)
        pictures = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    if amounts.contrast:
        gain, offset = (_spread(len(pictures), amounts.contrast)[:, None, None, None] for _ in range(2))
        pictures = ((pictures - 0.5) * (1.0 + gain) + 0.5 + offset).clamp(0.0, 1.0)
    return pictures


def _maps(count: int, amounts: Augmentation) -> Tensor:
    """Affine maps [N, 2, 3] from the new picture's coordinates (-1..1) to the old one's."""
    angle = _spread(count, math.radians(amounts.rotate))
    size = 1.0 + _spread(count, amounts.scale)
    shift = torch.stack([_spread(count, 2 * amounts.shift), _spread(count, 2 * amounts.shift)], dim=1)
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0) if amounts.flip else torch.ones(count)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    rows = torch.stack([torch.stack([cos * mirror, -sin], 1), torch.stack([sin * mirror, cos], 1)], dim=1)
    return torch.cat([rows, shift[:, :, None]], dim=2)


def _spread(count: int, most: float) -> Tensor:
    """Uniform in -most..most, float32 [N]."""
    return (torch.rand(count) * 2.0 - 1.0) * most
