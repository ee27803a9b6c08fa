"""Compiles the `.proto` files beside it into `descriptors.binpb`: `make protos`. Needs grpcio-tools."""

from __future__ import annotations

import tempfile
from pathlib import Path

ROOT = Path(__file__).parent
COMPILED = ROOT / "descriptors.binpb"


def compiled() -> bytes:
    """The serialized `FileDescriptorSet` of all files, imported ones first; the same bytes for the same text."""
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / COMPILED.name
        code = protoc.main(["protoc", f"-I{ROOT}", "--include_imports", f"--descriptor_set_out={out}", *sources])
        if code != 0:
            raise SystemExit(code)
        return out.read_bytes()


if __name__ == "__main__":
    COMPILED.write_bytes(compiled())
