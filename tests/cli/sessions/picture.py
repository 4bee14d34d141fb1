"""A screen with its colors as an SVG picture for the documentation."""

from __future__ import annotations

import io
import re

from tests.cli.sessions.terminal import WIDTH


def to_svg(screen: str, name: str) -> str:
    """screen: with escape sequences, as tmux captures it. The picture loads no fonts."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console
    from rich.text import Text

    console = Console(
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(Text.from_ansi(screen), end="")
    template = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    template = template.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")
    text = console.export_svg(title=name, code_format=template, unique_id="terminal")
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
