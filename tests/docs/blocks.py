"""Finds the fenced code blocks of the pages and the tests that run them.

The info string of a block of commands declares where it runs:

| class | where |
| --- | --- |
| run | on this machine, without a cluster (test_commands.py) |
| train | the same, for a block that trains: slow |
| apiserver | against a real API server without nodes (test_apiserver.py) |
| render | the same, but helm only renders, because the server lacks the kinds of the objects |
| cluster | against devcluster with real pods (test_tutorials.py) |
| by-hand | nowhere: it changes the reader's machine or builds for minutes |
| needs-gpu, needs-cloud | nowhere: there is no GPU and no cloud account |
| include | nowhere: it is a file of the repository (`--8<--`), which has its own tests |

Tests check that the programs, commands, and options of all blocks exist, including those that run
nowhere. A block `text {.output}` shows the output of the block before it, where `...` matches any
text.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COMMANDS = frozenset({"bash", "sh", "shell", "console", "python"})
RUN = frozenset({"run", "train", "apiserver", "render", "cluster"})
NOT_RUN = frozenset({"by-hand", "needs-gpu", "needs-cloud", "include"})
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*) *(?:\{(?P<classes>[^}]*)\})?\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str  # below docs/
    line: int
    language: str
    classes: frozenset[str]
    text: str

    @property
    def where(self) -> str:
        return f"docs/{self.page}:{self.line}"

    @property
    def is_command(self) -> bool:
        return self.language in COMMANDS

    @property
    def is_output(self) -> bool:
        return "output" in self.classes


def read_blocks(text: str, page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found = []
    for match in FENCE.finditer(text):
        classes = frozenset(re.findall(r"\.([\w-]+)", match["classes"] or ""))
        indent = match["indent"]
        lines = [line.removeprefix(indent) for line in match["text"].splitlines()]
        number = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, number, match["language"], classes, "\n".join(lines) + "\n"))
    return found


def pages() -> dict[str, str]:
    """Map each page below docs/ to its text."""
    return {
        path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(DOCS.rglob("*.md"))
    }


def all_blocks() -> list[Block]:
    return [block for page, text in pages().items() for block in read_blocks(text, page)]


def blocks_for(page: str, *classes: str) -> list[tuple[Block, str]]:
    """Return the blocks of a page with one of these classes, each with its shown output."""
    blocks = read_blocks((DOCS / page).read_text(encoding="utf-8"), page)
    followers = [*blocks[1:], None]
    return [
        (block, follower.text if follower is not None and follower.is_output else "")
        for block, follower in zip(blocks, followers, strict=True)
        if block.classes & set(classes)
    ]


def pages_with(*classes: str) -> list[str]:
    """List the pages that have a block with one of these classes."""
    return sorted({block.page for block in all_blocks() if block.classes & set(classes)})
