"""Images to tensors, by Pillow: decode, resize, scale, normalize, lay out.

A picture is a Pillow image; pixels are an array [height, width, channels].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidBundle, InvalidInput
from inferloop.data.transforms.operation import Assets, Operation

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 50_000_000

Side = Annotated[int, msgspec.Meta(ge=1, le=16_384)]


class Decode(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bytes to a picture; an array uint8 [height, width] or [height, width, channels] is taken as it is."""

    takes: ClassVar[tuple[str, ...]] = ("bytes",)
    gives: ClassVar[str] = "picture"
    library: ClassVar[str] = "pillow"

    mode: Literal["L", "RGB", "RGBA"] = "RGB"
    orient: bool = True
    max_pixels: Annotated[int, msgspec.Meta(ge=1)] = MAX_PIXELS

    def bind(self, assets: Assets) -> Callable[[Any], Any]:
        """See `Operation.bind`."""
        del assets
        from inferloop.data.transforms import picture  # noqa: F401  # Pillow comes with the model, not with its first sample

        return self

    def __call__(self, value: bytes | Array) -> Image:
        """See `Operation.__call__`."""
        from inferloop.data.transforms.picture import converted, decode_image, from_array

        if isinstance(value, np.ndarray):
            return converted(from_array(value), self.mode)
        return decode_image(value, mode=self.mode, orient=self.orient, max_pixels=self.max_pixels)


class Resize(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """To a fixed width and height.

    Attributes:
        fit: `stretch` changes the aspect ratio, `cover` cuts the longer side, `contain` adds black borders.
    """

    takes: ClassVar[tuple[str, ...]] = ("picture",)
    gives: ClassVar[str] = "picture"
    library: ClassVar[str] = "pillow"

    width: Side
    height: Side
    filter: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    fit: Literal["stretch", "cover", "contain"] = "stretch"

    def __call__(self, value: Image) -> Image:
        """See `Operation.__call__`."""
        from inferloop.data.transforms.picture import resized

        return resized(value, (self.width, self.height), filter=self.filter, fit=self.fit)


class ToFloat(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Pixels as float32, multiplied by `scale` (1/255 by default)."""

    takes: ClassVar[tuple[str, ...]] = ("picture", "pixels")
    gives: ClassVar[str] = "pixels"

    scale: float = 1 / 255

    def __call__(self, value: Image | Array) -> Array:
        """See `Operation.__call__`."""
        return pixels(value).astype(np.float32) * np.float32(self.scale)


class Normalize(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`(x - mean) / std`, one value for all channels or one each."""

    takes: ClassVar[tuple[str, ...]] = ("picture", "pixels")
    gives: ClassVar[str] = "pixels"

    mean: list[float]
    std: list[Annotated[float, msgspec.Meta(gt=0)]]

    def bind(self, assets: Assets) -> Callable[[Any], Any]:
        """See `Operation.bind`."""
        del assets
        if not self.mean or len(self.mean) != len(self.std):
            raise InvalidBundle(f"mean has {len(self.mean)} values and std {len(self.std)}")
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)

        def normalize(value: Image | Array) -> Array:
            array = pixels(value).astype(np.float32, copy=False)
            if len(mean) not in (1, array.shape[-1]):
                raise InvalidInput(f"the image has {array.shape[-1]} channels, normalize has {len(mean)} means")
            return (array - mean) / std

        return normalize


class Standardize(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Each value by itself to mean 0 and standard deviation 1; a flat one becomes 0."""

    takes: ClassVar[tuple[str, ...]] = ("picture", "pixels", "signal")

    def __call__(self, value: Image | Array) -> Array:
        """See `Operation.__call__`."""
        array = pixels(value).astype(np.float32, copy=False)
        spread = max(float(array.std()), 1.0 / float(np.sqrt(array.size)))
        standard: Array = (array - array.mean(dtype=np.float32)) / np.float32(spread)
        return standard


def pixels(value: Image | Array) -> Array:
    """The array [height, width, channels] of a picture; an array stays as it is."""
    if isinstance(value, np.ndarray):
        return value
    array = np.asarray(value)
    return array[:, :, None] if array.ndim == 2 else array
