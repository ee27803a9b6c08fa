"""Signals, recordings and numbers to tensors. A signal is float32 [time, channels]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.errors import InvalidBundle, InvalidInput
from inferloop.data.codecs.pcm import read_wav
from inferloop.data.transforms.operation import Assets, Operation

Rate = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class DecodeWav(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A WAV recording to a mono signal at `rate` hertz; an array is taken as samples at that rate.

    Attributes:
        resample: bring other rates to `rate` (band-limited); without it they are refused.
    """

    takes: ClassVar[tuple[str, ...]] = ("bytes",)
    gives: ClassVar[str] = "signal"

    rate: Rate
    resample: bool = True

    def __call__(self, value: bytes | Array) -> Array:
        """See `Operation.__call__`."""
        if isinstance(value, np.ndarray):
            return as_signal(value)
        recording = read_wav(value)
        samples: Array = recording.samples.mean(axis=1, dtype=np.float32)
        if recording.rate != self.rate:
            if not self.resample:
                raise InvalidInput(f"the recording has {recording.rate} samples a second, the model takes {self.rate}")
            samples = resampled(samples, recording.rate, self.rate)
        return samples[:, None]


class Window(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A signal of a fixed length.

    Attributes:
        size: length in samples.
        channels: columns of the signal.
        rate: samples a second of the signal; for the reader.
        longer: what becomes of a longer one: refused, or its first, last or middle `size` samples.
        shorter: what becomes of a shorter one: refused, or zeros, or its last sample repeated, at its end.
    """

    takes: ClassVar[tuple[str, ...]] = ("signal",)
    gives: ClassVar[str] = "signal"

    size: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
    channels: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    rate: Positive | None = None
    longer: Literal["refuse", "first", "last", "middle"] = "refuse"
    shorter: Literal["refuse", "zeros", "edge"] = "refuse"

    def __call__(self, value: Array) -> Array:
        """See `Operation.__call__`."""
        length, channels = value.shape
        if channels != self.channels:
            raise InvalidInput(f"the signal has {channels} channels, the model takes {self.channels}")
        if length > self.size and self.longer != "refuse":
            start = {"first": 0, "last": length - self.size, "middle": (length - self.size) // 2}[self.longer]
            return value[start : start + self.size]
        if length < self.size and self.shorter != "refuse" and (length or self.shorter == "zeros"):
            return np.pad(value, ((0, self.size - length), (0, 0)), mode="constant" if self.shorter == "zeros" else "edge")
        if length != self.size:
            raise InvalidInput(f"the signal has {length} samples, the model takes {self.size}")
        return value


class Scale(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`(x - mean) / std`, one value for all or one a channel (or element)."""

    takes: ClassVar[tuple[str, ...]] = ("signal", "array")

    mean: list[float]
    std: list[Positive]

    def bind(self, assets: Assets) -> Callable[[Any], Any]:
        """See `Operation.bind`."""
        del assets
        if not self.mean or len(self.mean) != len(self.std):
            raise InvalidBundle(f"mean has {len(self.mean)} values and std {len(self.std)}")
        # in double precision: a sensor's offset may be much larger than its spread
        mean, std = np.array(self.mean), np.array(self.std)

        def scale(value: Array) -> Array:
            if len(mean) not in (1, value.shape[-1]):
                raise InvalidInput(f"the field has {value.shape[-1]} values in a row, scale has {len(mean)}")
            scaled: Array = ((value - mean) / std).astype(np.float32)
            return scaled

        return scale


class Clip(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limit values to `low`..`high`."""

    takes: ClassVar[tuple[str, ...]] = ("signal", "array", "pixels")

    low: float
    high: float

    def bind(self, assets: Assets) -> Callable[[Any], Any]:
        """See `Operation.bind`."""
        del assets
        if not self.low < self.high:
            raise InvalidBundle(f"low is {self.low}, it must be below high, which is {self.high}")
        return self

    def __call__(self, value: Array) -> Array:
        """See `Operation.__call__`."""
        return np.clip(value, np.float32(self.low), np.float32(self.high))


class Fill(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Replace what is missing (not a number) or infinite; without it such values are refused."""

    takes: ClassVar[tuple[str, ...]] = ("signal", "array")

    value: float = 0.0

    def __call__(self, value: Array) -> Array:
        """See `Operation.__call__`."""
        return np.where(np.isfinite(value), value, np.float64(self.value))


class Vector(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Numbers in a row: a field that is an array, or several fields of one number each.

    Attributes:
        size: how many; taken from `fields` where they are named.
        fields: the Sample's fields in order; empty for one field with an array.
    """

    takes: ClassVar[tuple[str, ...]] = ("number",)
    gives: ClassVar[str] = "array"

    size: Annotated[int, msgspec.Meta(ge=1)] | None = None
    fields: list[str] = []  # noqa: RUF012  # msgspec copies defaults

    def __call__(self, value: Array) -> Array:
        """See `Operation.__call__`."""
        row = value.reshape(-1)
        size = len(self.fields) or self.size or len(row)
        if len(row) != size:
            raise InvalidInput(f"the field has {len(row)} numbers, the model takes {size}")
        return row


class Layout(Operation, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The order of the axes in the tensor: images HWC or CHW, signals TC, CT, or T for a single channel."""

    takes: ClassVar[tuple[str, ...]] = ("picture", "pixels", "signal")
    gives: ClassVar[str] = "array"

    order: Literal["HWC", "CHW", "HW", "TC", "CT", "T"]

    def __call__(self, value: Any) -> Array:
        """See `Operation.__call__`."""
        array = np.asarray(value)
        if array.ndim == 2 and self.order in ("HWC", "CHW", "HW"):
            array = array[:, :, None]
        if self.order in ("HW", "T"):
            if array.shape[-1] != 1:
                raise InvalidInput(f"layout {self.order} takes one channel, there are {array.shape[-1]}")
            return array[..., 0]
        return np.ascontiguousarray(np.moveaxis(array, -1, 0)) if self.order in ("CHW", "CT") else array


def as_signal(value: Array) -> Array:
    """An array [time] or [time, channels] as a signal."""
    if value.dtype.kind not in "biuf" or value.ndim not in (1, 2):
        raise InvalidInput(f"a signal must be numbers [time] or [time, channels], it is {value.dtype}{list(value.shape)}")
    return value[:, None] if value.ndim == 1 else value


def resampled(samples: Array, rate: int, wanted: int) -> Array:
    """Samples [time] at another rate, band-limited by the Fourier transform; float32."""
    length = round(len(samples) * wanted / rate)
    if not length or not len(samples):
        return np.zeros(0, np.float32)
    spectrum = np.fft.rfft(samples)
    kept = np.zeros(length // 2 + 1, spectrum.dtype)
    shared = min(len(spectrum), len(kept))
    kept[:shared] = spectrum[:shared]
    return (np.fft.irfft(kept, length) * (length / len(samples))).astype(np.float32)
