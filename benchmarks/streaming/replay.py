"""A million decisions in a ledger, decided again by the command, and row by row by a loop that shares nothing with it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import yaml

from harness import tool
from inferloop.core.bundle import MODEL
from inferloop.data.ledger.ledger import Ledger
from inferloop.data.ledger.policy import LedgerPolicy, StoreInputs
from inferloop.data.ledger.records import DecisionRecord, PredictionRecord
from inferloop.registry.registry import Registry
from streaming import stage
from support.bundles import LABELS

ROWS = 1_000_000
KEYS = 500
ABOVE, OF, NEED, COOLDOWN_S = 0.5, 3, 2, 1200.0
_START_S = 1_790_000_000.0


def measured() -> tuple[float, int, int]:
    """Seconds of the command, decisions that differ, and those that the brute-force loop decides otherwise."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["INFERLOOP_HOME"] = name
        with Registry() as registry:
            bundle = registry.register(stage.model(folder / "bundle"), alias="champion")
            model = bundle.path / MODEL
        _fill(folder)
        file, out = _pipeline(folder), folder / "rows.jsonl"
        command = [tool("inferloop"), "pipeline", "replay", str(file), "--model", "plant@champion", "--json"]
        started = time.perf_counter()
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        taken_s = time.perf_counter() - started
        subprocess.run([*command, "--rows", str(out)], check=True, stdout=subprocess.DEVNULL)
        with out.open() as found:
            wrong = sum(json.loads(line)["after"] != wanted for line, wanted in zip(found, _brute(model), strict=True))
        return taken_s, int(json.loads(said)["figures"]["differ"]), wrong


def _inputs() -> Iterator[list[float]]:
    dice = np.random.default_rng(7)
    for _ in range(ROWS // 1000):
        yield from dice.normal(size=(1000, stage.WIDTH)).round(2).tolist()


def _fill(folder: Path) -> None:
    dice = random.Random(7)
    with Ledger(folder / "ledger.db", policy=LedgerPolicy(StoreInputs.FULL, max_age_s=1e12, max_bytes=1 << 40)) as ledger:
        for number, values in enumerate(_inputs()):
            at, id_, key = _START_S + number, f"{number:032x}", f"d{number % KEYS}"
            body = json.dumps({"values": values}, separators=(",", ":")).encode()
            scores = {"cold": 1.0, "warm": 0.0, "hot": 0.0}
            ledger.append(PredictionRecord(id_, at, "plant", 1, key, "cold", 1.0, scores, body, "json", source="plant"))
            acts = dice.random() < 0.1
            decision = DecisionRecord(f"m{number}", id_, "plant", "hot" if acts else "", ("out",) if acts else (), at)
            decision.reason, decision.key, decision.event_time = "" if acts else "no_rule", key, at
            ledger.append(decision)
            if number % 2000 == 0:
                ledger.flush(60)


def _pipeline(folder: Path) -> Path:
    path = stage.pipeline(folder, stage.mqtt("mqtt://127.0.0.1:1883"), acts=True)
    content = yaml.safe_load(path.read_text())
    vote, cooldown = {"of": OF, "need": NEED}, f"{COOLDOWN_S:g}s"
    content["rules"] = [{"name": "hot", "label": "hot", "above": ABOVE, "vote": vote, "cooldown": cooldown, "send": ["out"]}]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def _brute(model: Path) -> Iterator[str]:
    """Vote and cooldown written down once more, plainly; the model is asked one row at a time."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    votes = [deque[bool](maxlen=OF) for _ in range(KEYS)]
    acted = [float("-inf")] * KEYS
    hot = LABELS.index("hot")
    for number, values in enumerate(_inputs()):
        (logits,) = session.run(["logits"], {"x": np.array([values], np.float32)})
        powers = np.exp(logits[0] - logits[0].max())
        key, at = number % KEYS, _START_S + number
        votes[key].append(bool(powers[hot] / powers.sum() > ABOVE))
        if not votes[key][-1] or sum(votes[key]) < NEED:
            yield "no_rule"
        elif at - acted[key] < COOLDOWN_S:
            yield "suppressed: cooldown"
        else:
            acted[key] = at
            yield "hot -> out"
