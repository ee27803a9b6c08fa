"""Processes that change one registry at once, and one that is killed between the files and the alias."""

import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from inferloop.core.bundle import MODEL, Bundle
from inferloop.core.datatypes import DataType
from inferloop.core.manifest import Manifest
from inferloop.core.signature import Signature, TensorSpec
from inferloop.registry.registry import Registry

REGISTER = """
import signal, sys, time
from inferloop.core.bundle import Bundle
from inferloop.registry.registry import Registry
signal.alarm(120)
registry, bundle, name = Registry(sys.argv[1]), Bundle.load(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    version = registry.register(bundle, alias=f"mine-{name}").version
    registry.promote("m", version, by=f"{name}-{number}")
    while len({move.by[0] for move in registry.history("m") if move.kind == "promote"}) < 2:
        time.sleep(0.001)  # one that starts early waits for the other, so that they do work at once
"""

STOP_BEFORE_ALIAS = """
import sys, time
from inferloop.core.bundle import Bundle
from inferloop.registry.registry import Registry
class Slow(Registry):
    def _complete(self, bundle, **options):
        print(bundle.path, flush=True)
        time.sleep(60)
Slow(sys.argv[1]).register(Bundle.load(sys.argv[2]), alias="champion")
"""

OPEN = """
import sys
from inferloop.registry.registry import Registry
print("ready", flush=True)
sys.stdin.readline()
print(Registry(sys.argv[1]).generation())
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    spec = TensorSpec("x", DataType.FP32, (None, 4))
    return Bundle.write(tmp_path / "m", Manifest(name="m", signature=Signature((spec,), (spec,))), {MODEL: b"model" * 1000})


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def go(children: list[subprocess.Popen[str]]) -> None:
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


def test_two_processes_that_register_and_promote_at_once_lose_nothing(tmp_path: Path, bundle: Bundle) -> None:
    children = [start(REGISTER, tmp_path / "registry", bundle.path, name) for name in ("a", "b")]
    go(children)
    errors = [child.communicate(timeout=150)[1] for child in children]
    assert errors == ["", ""]
    with Registry(tmp_path / "registry") as registry:
        promoted = [move for move in registry.history("m") if move.kind == "promote"]
        assert [info.version for info in registry.versions("m")] == list(range(1, 21))
        assert not any(check.problem for check in registry.verify("m"))
        assert sorted(move.by for move in promoted) == sorted(f"{name}-{number}" for name in "ab" for number in range(10))
        assert all(later.before == earlier.after for earlier, later in pairwise(promoted))
        assert registry.alias("m", "champion") == promoted[-1].after
        interleaved = [move.by[0] for move in promoted]
        assert interleaved != sorted(interleaved)  # they did work at once


def test_a_kill_between_the_files_and_the_alias_leaves_the_old_version(tmp_path: Path, bundle: Bundle) -> None:
    with Registry(tmp_path / "registry") as registry:
        registry.register(bundle, alias="champion")
        generation = registry.generation()
        child = start(STOP_BEFORE_ALIAS, tmp_path / "registry", bundle.path)
        assert child.stdout is not None
        files = Path(child.stdout.readline().strip())
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        assert (files / MODEL).is_file()  # the fault hit: the files of version 2 are there
        assert registry.resolve("m@champion").version == 1
        assert registry.resolve("m").version == 1
        assert [info.version for info in registry.versions("m")] == [1]
        assert registry.generation() == generation
        assert "cut off" in registry.verify("m")[1].problem
        assert registry.register(bundle, alias="champion").version == 3
        assert registry.rollback("m", by="ann") == (3, 1)


def test_processes_that_make_the_same_registry_at_once_all_get_it(tmp_path: Path) -> None:
    children = [start(OPEN, tmp_path / "registry") for _ in range(4)]
    go(children)
    outputs = [child.communicate(timeout=150) for child in children]
    assert outputs == [("0\n", "")] * 4
