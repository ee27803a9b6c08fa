from pathlib import Path

import pytest

from inferloop.core.bundle import MODEL, Bundle
from inferloop.core.datatypes import DataType
from inferloop.core.manifest import Manifest
from inferloop.core.signature import Role, Signature, TensorSpec


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    signature = Signature(
        inputs=(TensorSpec("x", DataType.FP32, (None, 4)),),
        outputs=(
            TensorSpec("scores", DataType.FP32, (None, 2)),
            TensorSpec("embedding", DataType.FP32, (None, 4), Role.EMBEDDING),
        ),
    )
    manifest = Manifest(name="refunds", signature=signature, labels=("yes", "no"), owner="shop")
    return Bundle.write(tmp_path / "made" / "refunds", manifest, {MODEL: b"not parsed by the registry", "assets/t.json": b"{}"})
