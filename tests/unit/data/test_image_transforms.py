import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inferloop.core.errors import InvalidBundle, InvalidInput, TooLarge
from inferloop.data.transforms.image import Decode, Normalize, Resize, Standardize, ToFloat, pixels
from inferloop.data.transforms.picture import decode_image


def encoded(array: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, form, **options)
    return stream.getvalue()


GRADIENT = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
PNG, JPEG = encoded(GRADIENT), encoded(GRADIENT, "JPEG")


def test_a_lossless_image_decodes_to_its_pixels():
    np.testing.assert_array_equal(pixels(decode_image(PNG)), GRADIENT)


def test_every_mode_becomes_the_declared_one():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"):
        stream = io.BytesIO()
        picture = Image.new(mode, (4, 3)) if mode == "I;16" else Image.new("RGB", (4, 3), (200, 100, 50)).convert(mode)
        picture.save(stream, "TIFF" if mode in ("CMYK", "I;16") else "PNG")
        assert pixels(decode_image(stream.getvalue(), mode="RGB")).shape == (3, 4, 3)
        assert pixels(decode_image(stream.getvalue(), mode="L")).shape == (3, 4, 1)


def test_sixteen_bit_gray_is_scaled_and_not_clipped():
    deep = np.array([[0, 256 * 100, 65535]], dtype=np.uint16)
    assert pixels(decode_image(encoded(deep), mode="L"))[0, :, 0].tolist() == [0, 100, 255]


def test_a_photo_is_turned_as_its_exif_data_say():
    exif = Image.Exif()
    exif[0x0112] = 6
    body = encoded(GRADIENT, "JPEG", exif=exif)
    assert decode_image(body).size == (12, 10)
    assert decode_image(body, orient=False).size == (10, 12)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is no image: empty, 0 bytes"),
        (b"<!DOCTYPE html><p>404", "is no image: HTML text, 21 bytes"),
        (b"%PDF-1.7 ...", "is no image: a PDF document, 12 bytes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "is damaged or truncated: a PNG image, 48 bytes"),
        (JPEG[:-40], r"is damaged or truncated \(a JPEG image, \d+ bytes\)"),
        (PNG[:60], r"is damaged or truncated \(a PNG image, 60 bytes\)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image: text"),
    ],
    ids=["nothing", "html", "pdf", "no-chunks", "cut-jpeg", "cut-png", "postscript"],
)
def test_an_image_that_is_no_image_says_what_it_is_and_how_many_bytes(body, says):
    with pytest.raises(InvalidInput, match=says):
        decode_image(body)


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 10_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(side):
    with pytest.raises(TooLarge, match=r"pixels|bomb"):
        decode_image(bomb(side, side))


@given(st.binary(max_size=200), st.integers(0, 400), st.sampled_from([PNG, JPEG]))
def test_damaged_bytes_give_an_image_or_invalid_input(noise, place, body):
    for candidate in (noise, body[:place] + noise + body[place + len(noise) :]):
        try:
            assert decode_image(candidate, max_pixels=10**6).mode == "RGB"
        except InvalidInput:
            continue


def test_resize_stretches_covers_or_contains():
    picture = Image.new("RGB", (20, 10), (255, 255, 255))
    stretched, covered, contained = (
        np.asarray(Resize(width=8, height=8, fit=fit)(picture)) for fit in ("stretch", "cover", "contain")
    )
    assert stretched.shape == covered.shape == contained.shape == (8, 8, 3)
    assert stretched.all()
    assert covered.all()
    assert not contained[0].any()


def test_an_array_is_taken_as_pixels():
    np.testing.assert_array_equal(pixels(Decode(mode="RGB")(GRADIENT)), GRADIENT)
    assert pixels(Decode(mode="L")(GRADIENT[:, :, 0])).shape == (12, 10, 1)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_an_array_that_is_no_image_is_refused(array):
    with pytest.raises(InvalidInput, match="must be uint8"):
        Decode()(array)


def test_normalize_is_per_channel():
    run = Normalize(mean=[0.0, 1.0, 2.0], std=[1.0, 1.0, 2.0]).bind(lambda name: None)
    assert run(np.full((1, 1, 3), 2.0, np.float32)).ravel().tolist() == [2.0, 1.0, 0.0]
    with pytest.raises(InvalidInput, match="the image has 1 channels, normalize has 3 means"):
        run(np.zeros((1, 1, 1), np.float32))
    with pytest.raises(InvalidBundle, match="mean has 1 values and std 2"):
        Normalize(mean=[0.0], std=[1.0, 1.0]).bind(lambda name: None)


@given(st.integers(0, 255), st.integers(0, 255))
def test_standardize_gives_mean_zero_and_never_divides_by_nothing(low, high):
    array = np.array([[[low], [high]]], dtype=np.uint8)
    result = Standardize()(ToFloat()(array))
    assert abs(float(result.mean())) < 1e-5
    assert np.isfinite(result).all()
