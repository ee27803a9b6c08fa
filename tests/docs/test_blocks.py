"""Every code block of the README and the documentation runs, page by page, in order, in a directory of the page's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from support.pages import PAGES, ROOT, Block, blocks, commands

LIMIT_S = 240


class Page:
    """A directory, an environment and the Python code so far; what the blocks of one page share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python: list[str] = []
        self.started: list[int] = []
        self.environment = {
            **os.environ,
            "INFERLOOP_HOME": str(folder / "home"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, block: Block) -> None:
        if "file" in block.options:
            path = self.folder / block.options["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code, encoding="utf-8")
        elif block.language == "console":
            self.execute(["bash", "-euo", "pipefail", "-c", commands(block.code)], int(block.options.get("exit", "0")))
        elif block.language == "python":
            self.python.append(block.code)
            self.execute([sys.executable, "-c", "\n".join(self.python)], 0)
        elif block.language == "yaml":
            yaml.safe_load(block.code)
        elif block.language == "json":
            json.loads(block.code)
        elif block.language not in {"text", "make"}:
            raise AssertionError(f"no way to run a block of {block.language!r}")

    def execute(self, command: list[str], expected: int) -> None:
        """Run to a file, so that a server left in the background holds no pipe of ours."""
        output = self.folder / f"output-{len(self.started)}.txt"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=stream, stderr=stream, start_new_session=True
            )
            self.started.append(process.pid)
            code = process.wait(LIMIT_S)
        shown = textwrap.indent(output.read_text(errors="replace"), "    ")
        assert code == expected, f"exit code {code}, expected {expected}, of\n{command[-1]}\n{shown}"

    def close(self) -> None:
        """End what the page left in the background."""
        for pid in self.started:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
@pytest.mark.timeout(600)
def test_every_block_of_a_page_runs(path, tmp_path):
    page = Page(tmp_path)
    try:
        for block in blocks(path):
            if "skip" in block.options:
                continue
            try:
                page.run(block)
            except AssertionError as error:
                raise AssertionError(f"{path.relative_to(ROOT)}:{block.line}: {error}") from None
    finally:
        page.close()


def test_every_block_that_does_not_run_says_why():
    skipped = {
        f"{path.name}:{block.line}": block.options["skip"] for path in PAGES for block in blocks(path) if "skip" in block.options
    }
    assert all(reason in {"sets-up-a-machine", "needs-the-wheels", "runs-on-and-on"} for reason in skipped.values()), skipped
