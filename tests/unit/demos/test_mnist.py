"""The digits: shuffled, split, PNG files that decode to the same pixels, and slanted ones from the new scanner."""

from __future__ import annotations

import gzip
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from inferloop.demos import mnist


@pytest.fixture
def rows(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (100, 784))
    table = np.column_stack([pixels, np.repeat(np.arange(10), 10)])
    with gzip.open(tmp_path / "digits.csv.gz", "wt") as stream:
        np.savetxt(stream, table, fmt="%d", delimiter=",")
    return tmp_path / "digits.csv.gz", table


def test_the_parts_share_no_image_and_hold_them_all(rows):
    path, _ = rows
    scans = mnist.load(path)
    assert [len(part) for part in (scans.train, scans.test, scans.feedback, scans.unseen)] == [60, 16, 14, 10]
    assert len({scan.label for scan in scans.train}) == 10


def test_a_scan_decodes_to_the_pixels_of_its_row(rows):
    path, table = rows
    scan = mnist.load(path).train[0]
    pixels = np.asarray(Image.open(io.BytesIO(scan.png))).reshape(-1)
    source = next(row for row in table if np.array_equal(row[:784], pixels))
    assert scan.label == str(source[-1])


def test_the_new_scanner_slants(rows):
    path, table = rows
    pixels = np.asarray(Image.open(io.BytesIO(mnist.load(path).unseen[0].png))).reshape(-1)
    assert not any(np.array_equal(row[:784], pixels) for row in table)


def test_a_data_set_is_a_zip_of_png_files_and_a_table(rows, tmp_path):
    path, _ = rows
    scans = mnist.load(path).test
    table = mnist.write_zip(tmp_path, "test", scans)
    with zipfile.ZipFile(tmp_path / "test.zip") as archive:
        assert len(archive.namelist()) == len(scans)
    assert table.read_text().splitlines()[0] == "file,label,topic"
