"""Regions of shared memory: what may be registered, and that no client can harm the server by what it does to its object."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferloop.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Unsupported
from inferloop.serving.operations.shared_memory import CudaRegions, Region, Regions

SHM = Path("/dev/shm")

pytestmark = pytest.mark.skipif(not SHM.is_dir(), reason="no /dev/shm on this system")


@pytest.fixture
def key() -> Iterator[str]:
    path = SHM / f"test-{uuid.uuid4().hex}"
    path.write_bytes(bytes(range(64)))
    yield f"/{path.name}"
    path.unlink(missing_ok=True)


@pytest.fixture
def regions() -> Iterator[Regions]:
    opened = Regions(allowed=True)
    yield opened
    opened.close()


def test_bytes_are_read_and_written_where_the_region_lies(regions: Regions, key: str) -> None:
    regions.register("r", key, 16, 32)
    assert bytes(regions.read(Region("r", 4, 8))) == bytes(range(24, 28))
    regions.write(Region("r", 4, 28), b"abcd")
    assert (SHM / key[1:]).read_bytes()[44:48] == b"abcd"
    assert regions.status("r") == [{"name": "r", "key": key, "offset": 16, "byte_size": 32}]


@pytest.mark.parametrize("part", [Region("r", 33), Region("r", 1, 32), Region("r", 8, -1), Region("other", 1)])
def test_a_part_outside_of_its_region_is_refused(regions: Regions, key: str, part: Region) -> None:
    regions.register("r", key, 16, 32)
    with pytest.raises(InvalidInput):
        regions.read(part)
    with pytest.raises(InvalidInput):
        regions.write(part, b"a")


def test_more_bytes_than_the_part_takes_are_refused(regions: Regions, key: str) -> None:
    regions.register("r", key, 0, 64)
    with pytest.raises(InvalidInput, match="too small"):
        regions.write(Region("r", 3), b"abcd")


def test_an_object_that_shrinks_is_an_error_and_never_grows_back(regions: Regions, key: str) -> None:
    regions.register("r", key, 0, 64)
    os.truncate(SHM / key[1:], 10)
    with pytest.raises(InvalidInput, match="has shrunk"):
        regions.read(Region("r", 64))
    with pytest.raises(InvalidInput, match="has shrunk"):
        regions.write(Region("r", 64), bytes(64))
    assert (SHM / key[1:]).stat().st_size == 10


@pytest.mark.parametrize("key", ["", "/", "..", "/../etc/passwd", "a/b", "/.hidden", "a\0b", "/dev/shm/x", "x" * 256, "a\n"])
def test_a_key_that_is_a_path_is_refused(regions: Regions, key: str) -> None:
    with pytest.raises(InvalidInput, match="no key of shared memory"):
        regions.register("r", key, 0, 1)


def test_a_link_out_of_shared_memory_is_not_followed(regions: Regions, tmp_path: Path, key: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    link = SHM / f"{key[1:]}-link"
    link.symlink_to(secret)
    try:
        with pytest.raises(InvalidInput, match="Unable to open"):
            regions.register("r", link.name, 0, 6)
    finally:
        link.unlink()


@pytest.mark.parametrize(("offset", "size"), [(0, 65), (60, 5), (-1, 4), (0, 0), (2**62, 2**62)])
def test_a_region_that_leaves_its_object_is_refused(regions: Regions, key: str, offset: int, size: int) -> None:
    with pytest.raises(InvalidInput):
        regions.register("r", key, offset, size)
    assert regions.status() == []


def test_a_name_is_registered_once(regions: Regions, key: str) -> None:
    regions.register("r", key, 0, 8)
    with pytest.raises(Conflict, match="already in manager"):
        regions.register("r", key, 8, 8)
    regions.unregister("r")
    regions.unregister("never")
    regions.register("r", key, 8, 8)
    with pytest.raises(NotFound, match="Unable to find system shared memory region: 'q'"):
        regions.status("q")


def test_while_it_is_off_nothing_can_be_registered_and_status_is_empty(key: str) -> None:
    regions = Regions()
    for refused in (lambda: regions.register("r", key, 0, 8), lambda: regions.read(Region("r", 8))):
        with pytest.raises(Forbidden, match="shared memory of clients is off"):
            refused()
    assert regions.status() == regions.status("r") == []
    regions.unregister()


def test_cuda_memory_is_never_there() -> None:
    regions = CudaRegions()
    assert regions.status() == []
    regions.unregister("r")
    with pytest.raises(Unsupported, match="CUDA"):
        regions.register("r")
