"""A running server: it answers, is corrected over REST, a better version is learned, and the server follows it."""

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner

from inferloop.cli import feedback
from inferloop.learning.learn import learn
from support import world
from support.serving import Running, serving


async def ask(running: Running, points):
    """One request a point; returns ids, labels and versions, every answer checked to be one."""
    ids, labels, versions = [], [], set()
    for point in points:
        body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [float(value) for value in point]}]}
        reply = await running.infer("mood", body)
        assert reply.status == 200, reply.body
        logits = next(output for output in reply.json["outputs"] if output["name"] == "logits")["data"]
        ids.append(reply.headers["Inferloop-Prediction-Id"])
        labels.append(world.LABELS[max(range(3), key=logits.__getitem__)])
        versions.add(reply.json["model_version"])
    return ids, labels, versions


async def test_a_server_is_corrected_and_follows_the_better_version_without_dropping_a_request(tmp_path: Path) -> None:
    x, y = world.draw("abroad", 300, seed=10)
    truths = [world.LABELS[index] for index in y]
    async with serving(tmp_path, world.bundle(tmp_path / "mood")) as running:
        ids, before, versions = await ask(running, x)
        assert versions == {"1"}
        table = tmp_path / "truths.csv"
        table.write_text("prediction_id,label\n" + "".join(f"{i},{t}\n" for i, t in zip(ids, truths, strict=True)))
        arguments = ["--csv", str(table), "--url", running.url, "--json"]
        sent = await asyncio.to_thread(CliRunner().invoke, feedback.command, arguments)
        assert json.loads(sent.stdout) == {"written": 300, "refused": []}, sent.output

        asking = asyncio.create_task(keep_asking(running, x[:20]))
        result = await asyncio.to_thread(
            lambda: learn("mood", registry=running.registry, ledger=running.ledger, promote=True, by="test")
        )
        assert result.promoted, result.report.notes
        assert "2" in await asking

        unseen, truth = world.draw("abroad", 100, seed=11)
        _, after, versions = await ask(running, unseen)
        assert versions == {"2"}
        right = sum(label == world.LABELS[index] for label, index in zip(after, truth, strict=True))
        assert right > 80 > sum(label == truth for label, truth in zip(before, truths, strict=True)) / 3


async def keep_asking(running: Running, points):
    """Ask without a pause until the second version has answered; every answer must be one."""
    seen = set()
    async with asyncio.timeout(60):
        while "2" not in seen:
            _, _, versions = await ask(running, points)
            seen |= versions
    return seen
