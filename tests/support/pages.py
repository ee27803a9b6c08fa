"""The pages and their fenced code blocks, and how each kind of block is run.

The info string after the language says what is special:

    ```yaml file=train.yaml          the block is written to this file of the page's directory before later blocks run
    ```console skip=REASON           the block cannot run in a test; the reason is the test's skip
    ```console exit=1                the last command ends with this exit code
    ```text                          shown output, not run
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^```(?P<language>[a-z]+)(?P<options>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    line: int
    language: str
    options: dict[str, str]
    code: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        options = dict(option.split("=", 1) for option in match["options"].split())
        found.append(Block(text.count("\n", 0, match.start()) + 1, match["language"], options, match["code"]))
    return found


def commands(code: str) -> str:
    """The commands of a console block: lines after `$ `, with their continuation lines."""
    lines, more = [], False
    for line in code.splitlines():
        if line.startswith("$ "):
            lines.append(line[2:])
        elif more:
            lines.append(line)
        else:
            continue
        more = lines[-1].endswith("\\")
    return "\n".join(lines)
