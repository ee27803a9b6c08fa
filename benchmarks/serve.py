"""The server beside its peers, beside Triton and beside the bare engine.

`python benchmarks/serve.py [PART ...]` measures some parts only: python, tiny, grpc, peers, image, resnet, idle, replay, cycles,
swap, chaos, soak. Servers have one core, the load another; answers are compared with the engine's. wrk must be installed; peers
install themselves into environments of their own (see serving/contenders.py). The whole takes about an hour, half of it soak.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness import ROOT, Row, judged, write
from serving import asks, image, inprocess, live, models, single
from serving.contenders import PEERS, ours
from serving.grpc_asks import triton_message
from serving.grpc_load import load as grpc_load
from serving.load import Ask, Cell, Failed, median, wrk
from serving.process import NotReady, Server

BENCH = "make bench-serve"
ROUNDS = 5
PEER_ROUNDS = 3
SECONDS = 3


def main() -> None:
    names = sys.argv[1:] or list(PARTS)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="inferloop-bench-") as folder:
        for name in names:
            print(f"... {name}", file=sys.stderr)
            rows += PARTS[name](Path(folder))
    write("serve", rows)
    sys.exit(0 if all(row.met is not False for row in rows) else 1)


def tiny(folder: Path) -> list[Row]:
    """One core, 64 connections: CPU time of a request with validation, metrics, limits and ledger on, and without the ledger."""
    bundle = models.tiny(folder / "tiny-model")
    x = models.row(bundle)
    y = models.bare(bundle)(x)
    json_ask, binary_ask = asks.protocol_json("tiny", x, y), asks.protocol_binary("tiny", x, y)
    with (
        ours(str(bundle.path), folder=folder / "a") as server,
        ours(str(bundle.path), folder=folder / "b", options=["--no-ledger"]) as bare,
    ):
        jobs = {"json": (server, json_ask), "binary": (server, binary_ask), "no_ledger": (bare, json_ask)}
        found = interleaved({name: lambda job=job: wrk(*job, seconds=SECONDS) for name, job in jobs.items()})
    floor = "constant answer of a prototype 10"
    return [
        judged("rest_json_us", round(found["json"].cpu_us, 1), "us", goal="<= 40", command=BENCH, peer=floor),
        judged("rest_json_no_ledger_us", round(found["no_ledger"].cpu_us, 1), "us", goal="", command=BENCH),
        judged("rest_binary_us", round(found["binary"].cpu_us, 1), "us", goal="<= 36", command=BENCH),
        *_load_rows("rest_json", found["json"]),
        *_load_rows("rest_binary", found["binary"]),
    ]


def grpc(folder: Path) -> list[Row]:
    """The same over gRPC, with another deadline and another id in each call; each of our transports, and MLServer."""
    bundle = models.tiny(folder / "tiny-model-grpc")
    ask = triton_message("tiny", models.row(bundle), models.bare(bundle)(models.row(bundle)))
    with ours(str(bundle.path), folder=folder / "c", grpc=True, options=["--grpc-transport", "http2"]) as lean:
        with ours(str(bundle.path), folder=folder / "d", grpc=True, options=["--grpc-transport", "grpcio"]) as plain:
            found = interleaved({"lean": lambda: grpc_load(lean, ask), "grpcio": lambda: grpc_load(plain, ask, calls=200)})
        rows = [
            judged(
                "grpc_us", round(found["lean"].cpu_us, 1), "us", goal="<= 70", command=BENCH, peer="prototype, equal calls 21"
            ),
            judged("grpc_over_grpcio_us", round(found["grpcio"].cpu_us, 1), "us", goal="", command=BENCH),
            *_load_rows("grpc", found["lean"]),
        ]
        try:
            with PEERS["mlserver"].start(bundle, folder / "mlserver-grpc") as peer:
                pair = interleaved(
                    {"ours": lambda: grpc_load(lean, ask), "peer": lambda: grpc_load(peer, ask, calls=40)}, PEER_ROUNDS
                )
        except (NotReady, Failed) as error:
            return [*rows, *_skipped("mlserver over gRPC", error)]
    ratio = pair["ours"].cpu_us / pair["peer"].cpu_us
    peer_text = f"{pair['peer'].cpu_us:.0f} us"
    return [*rows, judged("grpc_vs_mlserver", round(ratio, 3), "", goal="<= 0.15", command=BENCH, peer=peer_text)]


def peers(folder: Path) -> list[Row]:
    """Each peer in turn beside us, JSON: the ratio of CPU time inside one run."""
    bundle = models.tiny(folder / "tiny-model-peers")
    x = models.row(bundle)
    y = models.bare(bundle)(x)
    mine = asks.protocol_json("tiny", x, y)
    theirs = {
        "mosec": asks.rows("/inference", x, y),
        "litserve": asks.rows("/predict", x, y),
        "bentoml": asks.rows("/predict", x, y),
    }
    rows: list[Row] = []
    with ours(str(bundle.path), folder=folder / "e") as server:
        for name, peer in PEERS.items():
            try:
                with peer.start(bundle, folder / name) as other:
                    rows += _beside(name, server, mine, other, theirs.get(name, mine))
            except (NotReady, Failed) as error:
                rows += _skipped(name, error)
    return rows


def _beside(name: str, server: Server, mine: Ask, other: Server, theirs: Ask) -> list[Row]:
    goals = {"mosec": "<= 0.7", "mlserver": "<= 0.08"}
    jobs: dict[str, Callable[[], Cell]] = {
        "ours": lambda: wrk(server, mine, seconds=SECONDS),
        "peer": lambda: wrk(other, theirs, seconds=SECONDS),
    }
    found = interleaved(jobs, PEER_ROUNDS)
    ratio = found["ours"].cpu_us / found["peer"].cpu_us
    return [
        judged(f"rest_json_vs_{name}", round(ratio, 3), "", goal=goals.get(name, ""), command=BENCH),
        judged(f"{name}_json_us", round(found["peer"].cpu_us, 1), "us", goal="", command=BENCH),
        *_load_rows(f"{name}_json", found["peer"]),
    ]


def interleaved(jobs: dict[str, Callable[[], Cell]], rounds: int = ROUNDS) -> dict[str, Cell]:
    """Each job once a round; the median over the rounds."""
    cells: dict[str, list[Cell]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            cells[name].append(job())
    for name, found in cells.items():
        print(
            f"    {name}: {', '.join(f'{cell.cpu_us:.1f}' for cell in found)} us, {found[-1].checked} compared", file=sys.stderr
        )
    return {name: median(found) for name, found in cells.items()}


def replay(folder: Path) -> list[Row]:
    """The share of the exchanges recorded from a real Triton that we answer alike."""
    return live.replay_share(folder, BENCH)


def cycles(_: Path) -> list[Row]:
    """Memory over 50 times load and unload."""
    growth = live.json_of([sys.executable, str(ROOT / "benchmarks/serve_cycles.py")])["rss_growth"]
    return [judged("rss_growth", round(growth, 4), "", goal="< 0.05", command=BENCH)]


def chaos(_: Path) -> list[Row]:
    """10,000 requests of garbage, half-open, oversized, slow and cancelled, and what is left of the server."""
    report = live.json_of([sys.executable, str(ROOT / "benchmarks/serve_chaos.py")])
    growth = report["rss_mb_after"] / report["rss_mb_before"] - 1
    return [
        judged("chaos_requests", sum(report["met"].values()), "requests", goal=">= 10000", command=BENCH),
        judged(
            "chaos_wrong",
            len(report["wrong"]),
            "outcomes",
            goal="== 0",
            command=BENCH,
            peer="valid ones in between, and the faults",
        ),
        judged("chaos_tracebacks", report["tracebacks"], "", goal="== 0", command=BENCH),
        judged("chaos_connections_left", report["connections"], "connections", goal="== 0", command=BENCH),
        judged("chaos_rss_growth", round(growth, 3), "", goal="<= 0.25", command=BENCH),
    ]


def _load_rows(name: str, cell: Cell) -> list[Row]:
    return [
        judged(f"{name}_rate", round(cell.rate), "requests/s", goal="", command=BENCH),
        judged(f"{name}_p50_ms", round(cell.p50_ms, 2), "ms", goal="", command=BENCH),
        judged(f"{name}_p99_ms", round(cell.p99_ms, 2), "ms", goal="", command=BENCH),
    ]


def _skipped(name: str, error: Exception) -> list[Row]:
    print(f"{name} left out: {error}", file=sys.stderr)
    return []


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "python": lambda folder: inprocess.rows(folder, BENCH),
    "tiny": tiny,
    "grpc": grpc,
    "peers": peers,
    "image": lambda folder: image.rows(folder, BENCH),
    "resnet": lambda folder: single.resnet(folder, BENCH),
    "idle": lambda folder: single.idle(folder, BENCH),
    "replay": replay,
    "cycles": cycles,
    "swap": lambda folder: live.swap(folder, BENCH),
    "chaos": chaos,
    "soak": lambda folder: live.soak(folder, BENCH),
}

if __name__ == "__main__":
    main()
