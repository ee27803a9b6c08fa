"""The loop from data to a promoted update: both demos, training on banking77, the size of the core, the price of `--help`.

`python benchmarks/loop.py [PART ...]` measures some parts only: refunds, digits, banking77, help, core. banking77 is read from
the folder that INFERLOOP_SHARED names; without it these figures stay as they were.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import ROOT, Row, cpu_seconds, judged, tool, write

BENCH = "make bench-loop"
REFUNDS = "inferloop demo refunds --json"
DIGITS = "inferloop demo digits --json"


def main() -> None:
    parts = {"refunds": refunds, "digits": digits, "banking77": banking77, "help": help_cpu, "core": core_size}
    rows = [row for name in sys.argv[1:] or parts for row in parts[name]()]
    write("loop", rows)
    sys.exit(0 if all(row.met is not False for row in rows) else 1)


def refunds() -> list[Row]:
    """Run the demo as a user does; wall time of the whole process, the rest from its last line."""
    story, report, seconds = run_demo("refunds")
    baseline = round(story["baseline_accuracy"], 4)
    return [
        judged("demo_seconds", round(seconds, 1), "s", goal="<= 240", command=REFUNDS),
        judged(
            "demo_accuracy", round(story["accuracy"], 4), "", goal=f">= {baseline}", command=REFUNDS, peer=f"LinearSVC {baseline}"
        ),
        judged("demo_baseline", baseline, "", goal="", command=REFUNDS, peer="TF-IDF + LinearSVC, same split"),
        judged("demo_f1_gain", round(report["macro_f1_gain"], 4), "macro-F1", goal="> 0", command=BENCH),
        judged("demo_lost", story["lost"], "messages", goal="== 0", command=REFUNDS),
        judged("demo_duplicates", story["duplicates"], "refunds", goal="== 0", command=REFUNDS),
        judged(
            "demo_new_topics_gain", round(story["accuracy_after"] - story["accuracy_before"], 4), "", goal="", command=REFUNDS
        ),
        judged("demo_p50", story["p50_ms"], "ms", goal="", command=REFUNDS),
        judged("demo_p99", story["p99_ms"], "ms", goal="", command=REFUNDS),
    ]


def digits() -> list[Row]:
    story, _, seconds = run_demo("digits")
    return [
        judged("digits", round(story["accuracy"], 4), "", goal=">= 0.97", command=DIGITS, peer="RBF-SVM 0.953"),
        judged("digits_seconds", round(seconds, 1), "s", goal="", command=DIGITS),
    ]


def banking77() -> list[Row]:
    """`inferloop train` as a user types it, on one thread: two spin beside other work, and CPU minutes mean nothing then."""
    shared = os.environ.get("INFERLOOP_SHARED")
    if not shared:
        print("banking77 skipped: set INFERLOOP_SHARED to the folder with the data sets", file=sys.stderr)
        return []
    frozen = train(shared, "text: {max_tokens: 64, tuned_layers: 0}")
    tuned = train(shared, "text: {max_tokens: 64, tuned_layers: 2}\nfit: {epochs: 4, lr: 2.0e-4}")
    peer = "LinearSVC on TF-IDF 0.918"
    return [
        judged("banking77_frozen", round(frozen["accuracy"], 4), "", goal=">= 0.92", command=BENCH, peer=peer),
        judged("banking77_frozen_cpu_minutes", round(frozen["cpu_s"] / 60, 2), "min", goal="", command=BENCH),
        judged("banking77_tuned", round(tuned["accuracy"], 4), "", goal=">= 0.93", command=BENCH, peer=peer),
        judged("banking77_tuned_cpu_minutes", round(tuned["cpu_s"] / 60, 2), "min", goal="<= 8", command=BENCH),
    ]


def train(shared: str, recipe: str) -> dict[str, float]:
    """The figures of the report of one training on banking77, judged once on its test file."""
    data = Path(shared) / "data" / "banking77"
    with tempfile.TemporaryDirectory() as folder:
        config, report = Path(folder) / "train.yaml", Path(folder) / "report.json"
        config.write_text(
            "task: text-classification\nname: intents\nthreads: 1\nsplit: {validation: 0.1}\n"
            f"data: {{path: {data / 'train.csv'}, test: {data / 'test.csv'}, text: text, label: category}}\n{recipe}\n"
        )
        command = [tool("inferloop"), "train", config, "-o", Path(folder) / "bundle", "--report", report]
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "INFERLOOP_HOME": folder}
        subprocess.run(command, check=True, env={**os.environ, **one_thread})
        figures: dict[str, float] = json.loads(report.read_text())["figures"]
        return figures


def help_cpu() -> list[Row]:
    command = [tool("inferloop"), "--help"]
    return [judged("help_cpu_s", round(cpu_seconds(command, runs=9), 3), "s", goal="<= 0.3", command="inferloop --help")]


def core_size() -> list[Row]:
    """The size on disk of what `pip install inferloop` adds to an empty environment, pip and setuptools not counted."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        site = next(Path(folder).glob("lib/python*/site-packages"))
        before = size_bytes(site)
        install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", ROOT]
        subprocess.run(install, check=True)
        added = size_bytes(site) - before
    return [judged("core_mb", round(added / 1e6, 1), "MB", goal="<= 300", command=BENCH)]


def run_demo(name: str) -> tuple[dict[str, Any], dict[str, float], float]:
    """The last line of the demo, the figures of its report, and the wall time of the process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [tool("inferloop"), "demo", name, "--json", "--report", path]
        started = time.monotonic()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.monotonic() - started
        return json.loads(done.stdout.splitlines()[-1]), json.loads(path.read_text())["figures"], seconds


def size_bytes(folder: Path) -> int:
    """Disk use of all files, byte code included (pip compiles what it installs)."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
