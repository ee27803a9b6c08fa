"""How each server under test is installed, started and asked.

Peers live in environments under `INFERLOOP_PEERS` (default: `~/.cache/inferloop/peers`), made on first use; one that does not
install or does not start is left out, with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from inferloop.core.bundle import MODEL, Bundle
from serving.process import NotReady, Server, free_port, running

_SCRIPTS = Path(__file__).resolve().parent / "peers"
_ENGINE = "onnxruntime==1.32.0"


@dataclass(frozen=True, slots=True)
class Peer:
    """One other server.

    Attributes:
        command: its arguments behind the environment's `bin/`; MODEL, PORT, GRPC and FOLDER are filled in.
        ready: a page that answers when it is up.
        prepare: writes what it wants to find in its folder.
    """

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    ready: str = "/v2/health/ready"
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path, Bundle, int, int], None] = lambda folder, bundle, port, grpc: None  # noqa: ARG005

    def start(self, bundle: Bundle, folder: Path) -> AbstractContextManager[Server]:
        """Start it with the model of a bundle.

        Raises:
            NotReady: it does not install or does not start.
        """
        return _started(self, bundle, folder)


@contextmanager
def _started(peer: Peer, bundle: Bundle, folder: Path) -> Iterator[Server]:
    home = environment(peer.name, peer.packages)
    port, grpc = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    peer.prepare(folder, bundle, port, grpc)
    names = {
        "MODEL": str(bundle.path / MODEL),
        "PORT": str(port),
        "GRPC": str(grpc),
        "FOLDER": str(folder),
        "SCRIPTS": str(_SCRIPTS),
    }
    program, *arguments = (_filled(part, names) for part in peer.command)
    extra = {"MODEL": names["MODEL"], **{key: _filled(value, names) for key, value in peer.environment.items()}}
    command = [program if program.startswith("/") else str(home / "bin" / program), *arguments]
    with running(command, port=port, grpc_port=grpc, ready=peer.ready, environment=extra, folder=folder) as server:
        yield server


def environment(name: str, packages: Sequence[str]) -> Path:
    """The environment of a peer, made if it is not there.

    Raises:
        NotReady: a package does not install.
    """
    home = Path(os.environ.get("INFERLOOP_PEERS", Path.home() / ".cache/inferloop/peers")) / name
    if not (home / "bin/python").exists():
        venv.create(home, with_pip=True)
        done = subprocess.run([home / "bin/pip", "install", "-q", *packages], capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(home)
            raise NotReady(f"{name} does not install: {done.stderr[-300:]}")
    return home


@contextmanager
def ours(*models: str, folder: Path, options: Sequence[str] = (), grpc: bool = False, core: int | None = 0) -> Iterator[Server]:
    """`inferloop serve` as a user starts it, with a home of its own."""
    port, grpc_port = free_port(), free_port()
    command = [str(Path(sys.executable).parent / "inferloop"), "serve", *models, "--http-port", str(port)]
    command += ["--grpc-port", str(grpc_port)] if grpc else ["--no-grpc"]
    home = {"INFERLOOP_HOME": str(folder / "home")}
    started = running([*command, *options], port=port, grpc_port=grpc_port, environment=home, core=core)
    with started as server:
        yield server


def _filled(text: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _mlserver(folder: Path, bundle: Bundle, port: int, grpc: int) -> None:
    shutil.copy(_SCRIPTS / "mlserver_model.py", folder)
    (folder / "model-settings.json").write_text(f'{{"name": "{bundle.name}", "implementation": "mlserver_model.Model"}}')
    ports = f'"http_port": {port}, "grpc_port": {grpc}, "metrics_port": {free_port()}'
    (folder / "settings.json").write_text(f'{{"host": "127.0.0.1", {ports}, "parallel_workers": 0, "debug": false}}')


def _triton(folder: Path, bundle: Bundle, port: int, grpc: int) -> None:  # noqa: ARG001  # the ports are arguments of the server
    home = environment("pytriton", PYTRITON)
    site = next((home / "lib").glob("python3*/site-packages"))
    backend = folder / "backends"
    shutil.copytree(site / "pytriton/tritonserver/backends", backend, dirs_exist_ok=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(site / f"pytriton/tritonserver/python_backend_stubs/{version}/triton_python_backend_stub", backend / "python")
    utils = backend / "python/triton_python_backend_utils.py"  # the stub ignores PYTHONPATH
    utils.write_text(f"import sys; sys.path.insert(0, {str(site)!r})\n{utils.read_text()}")
    model = folder / "repository" / bundle.name
    (model / "1").mkdir(parents=True, exist_ok=True)
    shutil.copy(_SCRIPTS / "triton_model.py", model / "1/model.py")
    shutil.copy(bundle.path / MODEL, model / "1/model.onnx")
    sides = "".join(
        f'{side} [{{ name: "{spec.name}" data_type: TYPE_FP32 dims: {[*spec.shape[1:]]} }}]\n'
        for side, (spec,) in (("input", bundle.signature.inputs), ("output", bundle.signature.outputs))
    )
    rest = "max_batch_size: 64\ndynamic_batching {}\ninstance_group [{ kind: KIND_CPU count: 1 }]\n"
    (model / "config.pbtxt").write_text(f'name: "{bundle.name}"\nbackend: "python"\n{sides}{rest}')
    start = folder / "tritonserver.sh"
    program = site / "pytriton/tritonserver/bin/tritonserver"
    start.write_text(f'#!/bin/sh\nexport LD_LIBRARY_PATH={site}/nvidia_pytriton.libs\nexec {program} "$@"\n')
    start.chmod(0o755)


PYTRITON = ("nvidia-pytriton==0.7.0", _ENGINE, "numpy<2")
PYTHON = "python"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "fastapi",
            ("fastapi==0.165.0", "uvicorn", "uvloop", "httptools", _ENGINE),
            (PYTHON, "{SCRIPTS}/fastapi_server.py", "{MODEL}", "{PORT}"),
        ),
        Peer(
            "mosec",
            ("mosec==0.9.8", _ENGINE),
            (PYTHON, "{SCRIPTS}/mosec_server.py", "--address", "127.0.0.1", "--port", "{PORT}", "--timeout", "30000"),
            ready="/",
        ),
        Peer("mlserver", ("mlserver==1.7.1", _ENGINE), ("mlserver", "start", "{FOLDER}"), prepare=_mlserver),
        Peer("kserve", ("kserve==0.21.0", _ENGINE), (PYTHON, "{SCRIPTS}/kserve_server.py", "{MODEL}", "{PORT}")),
        Peer(
            "litserve",
            ("litserve==0.2.19", _ENGINE),
            (PYTHON, "{SCRIPTS}/litserve_server.py", "{MODEL}", "{PORT}"),
            ready="/health",
        ),
        Peer(
            "bentoml",
            ("bentoml==1.4.39", _ENGINE),
            ("bentoml", "serve", "bentoml_service:Tiny", "--port", "{PORT}", "--host", "127.0.0.1", "--working-dir", "{SCRIPTS}"),
            ready="/readyz",
            environment={"BENTOML_HOME": "{FOLDER}", "BENTOML_DO_NOT_TRACK": "True"},
        ),
        Peer(
            "pytriton",
            PYTRITON,
            (
                "{FOLDER}/tritonserver.sh",
                "--model-repository={FOLDER}/repository",
                "--backend-directory={FOLDER}/backends",
                "--disable-auto-complete-config",
                "--http-address=127.0.0.1",
                "--http-port={PORT}",
                "--grpc-address=127.0.0.1",
                "--grpc-port={GRPC}",
                "--allow-metrics=false",
            ),
            prepare=_triton,
        ),
    )
}
