"""Answers remembered for equal requests, the least recently used forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from inferloop.core.datatypes import Array, Tensors

_ITEM_BYTES = 200  # about what an entry and an array take beside their values


class AnswerCache:
    """The outputs of one model version by its inputs, bounded in bytes. Event loop only.

    A model that does not give the same answer to the same tensors must not have one.
    """

    def __init__(self, max_bytes: int) -> None:
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, tuple[Tensors, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Tensors | None:
        """The outputs of that key: read-only arrays in a dict of the caller's own."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return dict(found[0])

    def put(self, key: bytes, outputs: Tensors) -> None:
        """Remember a copy of the outputs; one that alone is too large is not kept."""
        size = _ITEM_BYTES + sum(_ITEM_BYTES + size_of(array) for array in outputs.values())
        if size > self._max_bytes or key in self._kept:
            return
        kept = {name: array.copy() for name, array in outputs.items()}
        for array in kept.values():
            array.flags.writeable = False
        self._kept[key] = (kept, size)
        self.size_bytes += size
        while self.size_bytes > self._max_bytes:
            _, (_, freed) = self._kept.popitem(last=False)
            self.size_bytes -= freed


def key_of(inputs: Tensors) -> bytes:
    """A digest of checked inputs: names, types, shapes and every byte."""
    digest = blake2b(digest_size=20)
    for name in sorted(inputs):
        array = inputs[name]
        digest.update(repr((name, array.dtype.str, array.dtype.name, array.shape)).encode())
        if array.dtype == object:
            for item in array.ravel():
                value = item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogatepass")
                digest.update(b"%c%d:" % (98 if isinstance(item, bytes) else 115, len(value)))
                digest.update(value)
        else:
            digest.update(array.tobytes())
    return digest.digest()


def size_of(array: Array) -> int:
    """Bytes of an array, those of its texts included."""
    if array.dtype != object:
        return int(array.nbytes)
    return sum(_ITEM_BYTES + len(item) for item in array.ravel())
