"""Pictures by Pillow: decode, convert, resize. Loaded with the first model that takes images: 3 MB that others never need.

A picture is a Pillow image; pixels are an array [height, width, channels].
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, ImageOps

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidInput, TooLarge
from inferloop.data.codecs.content import describe, is_image
from inferloop.data.transforms.image import MAX_PIXELS

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""The formats that are read. A list, so that no format with a program in it (PostScript) is ever tried."""

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    struct.error,
    EOFError,
    UserWarning,  # where warnings are errors
)
"""What Pillow raises for bytes that are cut or wrong."""


def decode_image(body: bytes, *, mode: str = "RGB", orient: bool = True, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image.

    Args:
        body: JPEG, PNG, BMP, GIF (first frame), WebP, TIFF or PPM.
        mode: `L` for gray, `RGB`, or `RGBA`.
        orient: turn it the way its EXIF data say.
        max_pixels: larger images are refused before they are unpacked.

    Raises:
        InvalidInput: no image, a truncated or a damaged one; says what the bytes are and how many.
        TooLarge: more pixels than `max_pixels`.
    """
    picture = _open(body)
    width, height = picture.size
    if width * height > max_pixels:
        raise TooLarge(f"the image is {width} x {height} pixels, at most {max_pixels:,} are read ({describe(body)})")
    try:
        picture.load()
        if orient:
            picture = ImageOps.exif_transpose(picture)
        return converted(picture, mode)
    except _DAMAGED as error:
        raise InvalidInput(f"the image is damaged or truncated ({describe(body)}): {_first_line(error)}") from error


def resized(picture: Image.Image, size: tuple[int, int], *, filter: str, fit: str) -> Image.Image:  # noqa: A002  # the option's word
    """The picture in another width and height; see `Resize`."""
    if picture.size == size:
        return picture
    resample = _FILTERS[filter]
    if fit == "cover":
        return ImageOps.fit(picture, size, resample)
    if fit == "contain":
        return ImageOps.pad(picture, size, resample)
    return picture.resize(size, resample)


def _open(body: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(body), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"the image is a decompression bomb ({describe(body)})") from error
    except _DAMAGED as error:
        state = "is damaged or truncated" if is_image(body) else "is no image"
        raise InvalidInput(f"the input {state}: {describe(body)}", hint=f"formats: {', '.join(FORMATS)}") from error


def from_array(array: Array) -> Image.Image:
    """The picture of an array uint8 [height, width] or [height, width, channels]. Raises `InvalidInput` for another."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or array.size == 0:
        raise InvalidInput(
            f"an image as an array must be uint8 [height, width] or [height, width, 3 or 4], "
            f"it is {array.dtype}{list(array.shape)}"
        )
    return Image.fromarray(array)


def converted(picture: Image.Image, mode: str) -> Image.Image:
    """The picture in the mode `L`, `RGB` or `RGBA`."""
    if picture.mode == mode:
        return picture
    if picture.mode.startswith("I;16"):
        # Pillow clips 16-bit gray at 255; the high byte is what 8 bits mean
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert(mode)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert(mode)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
